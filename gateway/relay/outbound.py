"""Guests' traffic to the outside: puts together frames in, sockets of the host, and packets back."""

from collections.abc import Hashable

from gateway.relay.flow_context import Common
from gateway.relay.frames import Frames, Way
from gateway.relay.handshakes import Handshakes
from gateway.relay.nat import Judge, Nat
from gateway.relay.policy import OutboundPolicy
from gateway.relay.tcp import Connections
from gateway.relay.tun import Speaker, Tun


class Outbound:
    """Datagrams, pings and connections of guests."""

    def __init__(
        self,
        common: Common,
        connections: Connections,
        policy: OutboundPolicy,
        judge: Judge,
        way: Way,
    ) -> None:
        """Begin to carry."""
        self._tun = Tun(way.tun, common.counts)
        common.core.speak_by(way.tun, way.mtu)
        speaker = Speaker(self._tun, {4: policy.gateway4.packed, 6: policy.prefix[1].packed})
        nat = Nat(common, speaker, judge, way.owner_of, way.mtu)
        handshakes = Handshakes(connections, speaker, judge, common)
        self.accepted = handshakes.accepted
        self.end_flows = nat.end_flows
        self._nat, self._handshakes = nat, handshakes
        self._frames = Frames(common, way, policy, nat, handshakes)

    def left(self, port: Hashable) -> None:
        """Note that a port has left."""
        self._handshakes.forget(port)
        self._nat.left(port)
        self._frames.forget(port)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._frames.tick(now)

    def deadline(self) -> float | None:
        """Return when to call ``tick``; None: only when something happens."""
        return self._frames.deadline()

    def count_lost(self) -> None:
        """Count the guests' frames that the kernel has lost."""
        self._frames.count_lost()

    def close(self) -> None:
        """Close the sockets; the tables close flows and connections."""
        self._frames.close()
        self._tun.close()

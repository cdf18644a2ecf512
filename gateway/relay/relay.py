"""The relay: puts together all parts that carry traffic between the LAN's namespace and the host.

``frames`` reads guests' traffic: SYNs go to ``handshakes``, datagrams to ``nat``. ``policy`` decides where
guests may go, ``forwards`` is the table of forwards, ``tcp`` carries TCP, ``udp`` carries
datagrams of forwards. The owner of each connection and flow is a port or a forward; ``descriptors`` and
``fair_share`` limit what each may have.

A socket belongs to the namespace in which it was made. So the process inside only makes sockets (``make``);
waiting, connecting, splicing and time-outs happen here.

The process sleeps in the core's epoll set (``Splices.wait``), which has the connections, the loop of the
process and the relay's own set (``poller``). So events of connections reach Python only if there is something
to decide or to count.

A forward that is removed lets its connections finish; flows of datagrams end with it, since they answer
through its socket.
"""

import math
import socket
import time
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache, partial
from ipaddress import ip_address

from forwarder._core import Datagrams as Core
from forwarder._core import Splices
from forwarder.acceptor import Pauses
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.process.descriptors import raise_descriptor_limit
from forwarder.tcp_options import forgo_pacing
from gateway.listeners import Listener
from gateway.poller import Poller
from gateway.relay import descriptors
from gateway.relay.acceptor import Acceptor
from gateway.relay.connection import Deliver
from gateway.relay.counts import Counts, Log
from gateway.relay.departures import Departures
from gateway.relay.flow_context import Common, FlowTable
from gateway.relay.forwards import Forward, Forwards, check_guest
from gateway.relay.frames import Way
from gateway.relay.nat import NO_PINGS, may_ping
from gateway.relay.outbound import Outbound
from gateway.relay.policy import Address, OutboundPolicy, Verdict, is_nearby, judge
from gateway.relay.tcp import Connections, borrowed
from gateway.relay.udp import Datagrams, Route

TUNNEL = "tunnel"
"""Owner of all tunnels, which the host's user makes."""

VERDICT_S = 10.0
"""How long the relay remembers whether the host has an address."""

_LOOP, _POLLER = 0, 1
"""Bits of the sets that are watched in the core's."""

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

MakeInside = Callable[[str, Deliver], None]
"""Makes a socket in the namespace, of kind "tcp4", "tcp6", "udp4" or "udp6", and delivers it or None."""


class Relay:
    """The relay. Watch it with ``loop``; call ``tick`` when ``deadline`` says so."""

    def __init__(
        self,
        loop: Loop,
        make: MakeInside,
        policy: OutboundPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        log: Log = lambda level, text: None,
    ) -> None:
        """``make``: the namespace's sockets; ``clock``: monotonic, in seconds."""
        raise_descriptor_limit()
        self._loop = loop
        self._make = make
        self._policy = policy
        self._pauses = Pauses(clock)
        self._counts = Counts(clock, log)
        self._poller = Poller(loop.failed)
        budget = descriptors.budget()
        self._splices = Splices()
        self._connections = Connections(
            self._splices, budget, self._counts, clock, partial(is_nearby, policy)
        )
        self._forwards = Forwards(policy)
        self._flows = FlowTable(budget, self._counts)
        net, prefix = policy.subnet, policy.prefix.network_address.packed[:8]
        self._core = Core(net.network_address.packed, net.netmask.packed, prefix)
        self._common = Common(self._poller, self._flows, self._counts, clock, self._core)
        self._verdict = lru_cache(maxsize=4096)(partial(_verdict, policy))
        self._clock = clock
        self._log = log
        self._outbound: Outbound | None = None
        self._departures: Departures | None = None
        self._served: list[tuple[socket.socket, Acceptor]] = []
        self._listening: dict[Forward, tuple[Listener, Acceptor | Datagrams]] = {}
        self._splices.watch(loop.fileno(), _LOOP)
        self._splices.watch(self._poller.fileno(), _POLLER)
        loop.sleep_in(self._sleep)

    def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Accept from the namespace's listeners; the relay closes them.

        They are transparent: the address of an accepted socket is what the guest asked for.
        """
        for sock in sockets:
            made = Acceptor(self._poller, sock, self._accepted, self._pauses, self._splices, with_own=True)
            self._served.append((sock, made))

    def carry(self, way: Way) -> None:
        """Carry guests' traffic to the outside, and end connections of guests that leave."""
        if not may_ping():
            self._log("warning", NO_PINGS)
        outbound = self._outbound = Outbound(self._common, self._connections, self._policy, self._judge, way)
        self._departures = Departures(
            self._connections, way.neighbours, way.owner_of, outbound.end_flows, self._clock
        )

    def joined(self, port: Hashable) -> None:
        """Note that a port has joined."""
        if self._departures is not None:
            self._departures.joined(port)

    def left(self, port: Hashable) -> None:
        """Note that a port has left."""
        if self._outbound is not None:
            self._outbound.left(port)
        if self._departures is not None:
            self._departures.left(port)

    def begin(self, forward: Forward) -> None:
        """Keep a place for a forward until ``add`` or ``give_up``. Raises LocalError: it cannot be added."""
        self._forwards.begin(forward)

    def give_up(self, forward: Forward) -> None:
        """Forget a forward that was begun: there is no listener for it."""
        self._forwards.end(forward)

    def add(self, forward: Forward, listener: Listener) -> Forward:
        """Start to forward what was begun; return the forward with its real port.

        Raises LocalError: the port that the kernel chose is forwarded already. The listener is closed then.
        """
        self._forwards.end(forward)
        real = forward._replace(port=listener.port)
        try:
            self._forwards.add(real)
        except LocalError:
            listener.close()
            raise
        make = self._datagrams if real.kind == "udp" else self._accept
        self._listening[real] = listener, make(real, listener.sock)
        return real

    def remove(self, forward: Forward) -> None:
        """Stop a forward; existing connections stay. Raises LocalError if there is no such forward."""
        self._forwards.remove(forward)
        listener, acceptor = self._listening.pop(forward)
        acceptor.close()
        listener.close()

    def forward_of(self, listener: int) -> Forward | None:
        """Return the forward of the listener with that number, if it is one of a forward."""
        return next((each for each, (own, _) in self._listening.items() if own.number == listener), None)

    def tunnel(self, guest: Address, port: int) -> Callable[[socket.socket], None]:
        """Return a tunnel to a port of ``guest``. Raises LocalError if it is no guest's address."""
        check_guest(self._policy, guest)
        make = partial(self._make, f"tcp{guest.version}")

        def carry(near: socket.socket) -> None:
            near.setblocking(False)
            is_unix = near.family == socket.AF_UNIX
            self._connections.start(near.detach(), TUNNEL, (guest, port), make, is_unix=is_unix)

        return carry

    def forwards(self) -> list[Forward]:
        """Return all forwards, in the order in which they were added."""
        return list(self._forwards)

    def refusals(self) -> list[dict[str, object]]:
        """Return the guests' ports whose last connection from the host failed (``Connections``)."""
        return self._connections.refused_ports.plain()

    def counters(self) -> dict[str, int]:
        """Return the counters since the start, and the present numbers."""
        if self._outbound is not None:
            self._outbound.count_lost()
        dropped, syns, forged = self._core.take_counts()
        self._counts["datagrams_dropped"] += dropped
        self._counts.refuse_untold("over_limit", syns)
        self._counts.refuse_untold("spoofed", forged)
        now = {"forwards": len(self._forwards)}
        return dict(self._counts) | self._connections.figures() | self._flows.figures() | now

    def tick(self, now: float) -> None:
        """Do what is due, and the rest of the last turn."""
        self._connections.tick(now)
        self._pauses.tick(now)
        end = self._flows.deadline()
        if end is not None and end <= now:
            self._flows.expire(now)
        for part in (self._outbound, self._departures):
            if part is not None:
                part.tick(now)
        if self._poller.busy:
            self._poller.turn()

    @property
    def busy(self) -> bool:
        """Whether the last turn left work undone."""
        return self._poller.busy

    def deadline(self) -> float | None:
        """Return when to call ``tick``, in monotonic seconds; None: only when something happens.

        The rest of a turn is due since the beginning of time, so that every reading of the clock finds it
        due.
        """
        if self._poller.busy:
            return -math.inf
        ends = [self._connections.deadline(), self._flows.deadline(), self._pauses.deadline()]
        ends += [part.deadline() for part in (self._outbound, self._departures) if part is not None]
        return min((end for end in ends if end is not None), default=None)

    def close(self) -> None:
        """Reset every connection and close everything, also the served sockets."""
        for forward in self.forwards():
            self.remove(forward)
        for sock, acceptor in self._served:
            acceptor.close()
            sock.close()
        self._served.clear()
        self._connections.close()
        self._flows.expire(math.inf)
        if self._outbound is not None:
            self._outbound.close()
        self._loop.sleep_in(None)
        self._splices.close()
        self._poller.close()

    def _judge(self, asked: bytes) -> Verdict:
        """Apply the policy to a guest's request; keep answers briefly, since the host's addresses change."""
        return self._verdict(asked, int(self._clock() / VERDICT_S))

    def _sleep(self, seconds: float) -> bool:
        """Sleep until an event, or for so long; take what happens to connections and to the relay's sockets.

        Return whether the loop has something to do.
        """
        watched, reports = self._splices.wait(time.monotonic() + seconds)
        for report in reports:
            try:
                self._connections.reported(*report)
            except Exception:
                self._loop.failed()
        if watched >> _POLLER & 1:
            self._poller.turn()
        return bool(watched >> _LOOP & 1)

    def _accepted(self, near: int, peer: bytes, own: bytes) -> None:
        """Join a guest's connection with its dial."""
        assert self._outbound is not None
        self._outbound.accepted(near, peer, own)

    def _datagrams(self, forward: Forward, near: socket.socket) -> Datagrams:
        make = partial(self._make, f"udp{forward.guest.version}")
        route = Route((str(forward.guest), forward.guest_port), make)
        return Datagrams(self._common, near, forward.near, route)

    def _accept(self, forward: Forward, sock: socket.socket) -> Acceptor:
        return Acceptor(self._poller, sock, partial(self._inbound, forward), self._pauses, self._splices)

    def _inbound(self, forward: Forward, near: int, peer: bytes, _: bytes) -> None:
        """Carry a connection of a client on the host to a guest."""
        is_unix = forward.kind == "unix"
        if not is_unix and not forward.host.is_loopback and ip_address(peer[:-2]).is_loopback:
            with borrowed(near) as sock:
                forgo_pacing(sock)
        make = partial(self._make, f"tcp{forward.guest.version}")
        target = forward.guest, forward.guest_port
        self._connections.start(near, forward.near, target, make, is_unix=is_unix)


def _verdict(policy: OutboundPolicy, asked: bytes, _: int) -> Verdict:
    """Apply the policy; without host access the host's other addresses are refused, too."""
    verdict = judge(policy, ip_address(asked))
    if verdict.target is not None and not policy.host_access and is_own(verdict.target):
        return Verdict(None, "no_host_access")
    return verdict


def is_own(address: Address) -> bool:
    """Whether ``address`` is one of this host's: only such an address can be bound."""
    try:
        with socket.socket(_FAMILY[address.version], socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True

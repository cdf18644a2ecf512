"""The relay: everything that carries bytes between the LAN's namespace and the host, in one process and loop.

It composes and decides nothing itself. What guests send out comes by ``frames``: SYNs go to ``handshakes``,
and datagrams to ``nat``; where guests may go is ``policy``, what is forwarded ``forwards``, how TCP is
carried ``tcp`` and ``splice``, how datagrams of forwards are ``udp``. Owners of all of it are ports, or
forwards; ``descriptors`` and ``fair_share`` say how much each may have.

Sockets made in the namespace stay in it wherever they are used, so the process inside only makes them
(``make``), and all that waits, connects, splices or times out is here. The relay polls in a set of its own,
which is one descriptor in the loop of the process.

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
from forwarder.acceptor import Acceptor, Pauses
from forwarder.descriptor_limit import raise_descriptor_limit
from forwarder.loop import Loop
from gateway.relay import descriptors
from gateway.relay.counts import Counts, Log
from gateway.relay.departures import Departures
from gateway.relay.flow_context import Common, FlowTable
from gateway.relay.forwards import Forward, Forwards, check_guest
from gateway.relay.frames import Way
from gateway.relay.listening import Listening, listen
from gateway.relay.nat import NO_PINGS, may_ping
from gateway.relay.outbound import Outbound
from gateway.relay.policy import Address, OutboundPolicy, Verdict, is_nearby, judge
from gateway.relay.poller import Poller
from gateway.relay.tcp import Connections, Deliver
from gateway.relay.udp import Datagrams, Route

TUNNEL = "tunnel"
"""Owner of all tunnels: their clients are one, the host's user."""

VERDICT_S = 10.0
"""How long the gateway may go by an address that the host had or had not."""

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

MakeInside = Callable[[str, Deliver], None]
"""Makes a socket in the namespace, of kind "tcp4", "tcp6", "udp4" or "udp6", and delivers it or None."""


class Relay:
    """All that is relayed. Watch it with ``loop``; call ``tick`` when ``deadline`` says so."""

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
        self._connections = Connections(self._poller, budget, self._counts, clock, partial(is_nearby, policy))
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
        self._listening: dict[Forward, tuple[Listening, Acceptor | Datagrams]] = {}
        loop.watch(self._poller.fileno(), lambda _: self._poller.turn())

    def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Accept from the namespace's listeners, which are the relay's from now on.

        They are transparent: the address of an accepted socket is what the guest asked for.
        """
        for sock in sockets:
            self._served.append((sock, Acceptor(self._poller, sock, self._accepted, self._pauses)))

    def carry(self, way: Way) -> None:
        """Carry what guests send to the outside, and end what guests have had that leave."""
        if not may_ping():
            self._log("warning", NO_PINGS)
        self._departures = Departures(self._connections, way.neighbours, way.owner_of, self._clock)
        self._outbound = Outbound(self._common, self._connections, self._policy, self._judge, way)

    def left(self, port: Hashable) -> None:
        """Note that a port has left."""
        if self._outbound is not None:
            self._outbound.forget(port)
        if self._departures is not None:
            self._departures.left()

    def add(self, forward: Forward) -> Forward:
        """Start to forward; return the forward with its real port. Raises LocalError: nothing changed."""
        self._forwards.check(forward)
        listening, real = listen(forward)
        self._forwards.add(real)
        make = self._datagrams if real.kind == "udp" else self._accept
        self._listening[real] = listening, make(real, listening.sock)
        return real

    def remove(self, forward: Forward) -> None:
        """Stop to forward; what is connected stays. Raises LocalError: there is no such forward."""
        self._forwards.remove(forward)
        listening, acceptor = self._listening.pop(forward)
        acceptor.close()
        listening.close()

    def tunnel(self, guest: Address, port: int) -> Callable[[socket.socket], None]:
        """Return what carries a stream of the host to a port of ``guest``. Raises LocalError: no guest."""
        check_guest(self._policy, guest)
        make = partial(self._make, f"tcp{guest.version}")
        return lambda near: self._connections.start(near, TUNNEL, (guest, port), make)

    def forwards(self) -> list[Forward]:
        """Return all forwards, in the order in which they were added."""
        return list(self._forwards)

    def counters(self) -> dict[str, int]:
        """Return what happened since the start, and what there is now."""
        if self._outbound is not None:
            self._outbound.count_lost()
        dropped, syns, forged = self._core.take_counts()
        self._counts["datagrams_dropped"] += dropped
        self._counts.refuse_untold("over_limit", syns)
        self._counts.refuse_untold("spoofed", forged)
        now = {"forwards": len(self._forwards)}
        return dict(self._counts) | self._connections.figures() | self._flows.figures() | now

    def tick(self, now: float) -> None:
        """Do what time asks for, and what the last turn left undone."""
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

    def deadline(self) -> float | None:
        """Return when to call ``tick``, in monotonic seconds; None: only when something happens.

        What a turn left undone has been due for ever: whoever read the clock before asking must find it so.
        """
        if self._poller.busy:
            return -math.inf
        ends = [self._connections.deadline(), self._flows.deadline(), self._pauses.deadline()]
        ends += [part.deadline() for part in (self._outbound, self._departures) if part is not None]
        return min((end for end in ends if end is not None), default=None)

    def close(self) -> None:
        """Reset every connection and close everything, the served sockets too."""
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
        self._loop.unwatch(self._poller.fileno())
        self._poller.close()

    def _judge(self, asked: bytes) -> Verdict:
        """Say where a guest gets, from memory for a while: the host's own addresses may change."""
        return self._verdict(asked, int(self._clock() / VERDICT_S))

    def _accepted(self, near: socket.socket) -> None:
        """Join a guest's connection with the one that was made for it."""
        assert self._outbound is not None
        self._outbound.accepted(near)

    def _datagrams(self, forward: Forward, near: socket.socket) -> Datagrams:
        make = partial(self._make, f"udp{forward.guest.version}")
        route = Route((str(forward.guest), forward.guest_port), make)
        return Datagrams(self._common, near, forward.near, route)

    def _accept(self, forward: Forward, sock: socket.socket) -> Acceptor:
        return Acceptor(self._poller, sock, partial(self._inbound, forward), self._pauses)

    def _inbound(self, forward: Forward, near: socket.socket) -> None:
        """Carry a connection of one of the host's clients to a guest."""
        make = partial(self._make, f"tcp{forward.guest.version}")
        self._connections.start(near, forward.near, (forward.guest, forward.guest_port), make)


def _verdict(policy: OutboundPolicy, asked: bytes, _: int) -> Verdict:
    """Say where a guest gets; without host access the host's other addresses are closed as well."""
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

"""End the connections and flows of VMs that have left, so that the other ends hear of it soon.

TCP itself notices a vanished peer after minutes. The switch knows at once that a port has left, but not which
IP addresses were behind it. Also, a VM may come back, and keeps its connections if it reconnects. So

1. a port leaves: the namespace is asked who its neighbours are, and those that have connections and whose
   Ethernet address is behind no port, or behind a port that is younger than a connection, are *in doubt*;
2. their kernels are asked each second whether they are there, connection by connection
   (``forwarder.tcp_options.PROBING``);
3. after ``WAIT_S`` the connections of those that have acknowledged nothing meanwhile are reset.

A flow of datagrams belongs to a port, so no kernel is asked: at the end of ``WAIT_S`` the flow ends, unless
its Ethernet address is behind another port by then. Meanwhile ``nat`` delivers none of its answers, since
another VM may have the IP address by now.

Example: a VM is killed with one idle connection and one that has bytes under way. Its port leaves at once,
and both are in doubt; 7 seconds later both are reset. Had the VM reconnected after 3, it would have answered.

``now`` is monotonic time in seconds.
"""

from collections import deque
from collections.abc import Callable, Hashable
from ipaddress import ip_address
from typing import NamedTuple

from forwarder.future import Future
from forwarder.messages import Reply
from gateway.relay.policy import Address
from gateway.relay.tcp import Connections

WAIT_S = 7.0
SILENT_S = 6.0
"""Seconds of silence after which a connection is reset; the first probe would have its answer by then."""


class _Doubt(NamedTuple):
    end: float
    peers: set[Address]


class Departures:
    """The guests in doubt."""

    def __init__(
        self,
        connections: Connections,
        neighbours: Callable[[], Future[Reply]],
        owner_of: Callable[[bytes], Hashable | None],
        end_flows: Callable[[Hashable], object],
        clock: Callable[[], float],
    ) -> None:
        """``neighbours`` asks for pairs of IP and MAC address (hexadecimal digits).

        ``end_flows`` ends the flows of a port that has left, unless their VM is back.
        """
        self._connections = connections
        self._neighbours = neighbours
        self._owner_of = owner_of
        self._end_flows = end_flows
        self._clock = clock
        self._asking = False
        self._again = False
        self._doubts: deque[_Doubt] = deque()
        self._since: dict[Hashable, float] = {}
        """When ports have joined."""
        self._gone: deque[tuple[float, Hashable]] = deque()

    def joined(self, port: Hashable) -> None:
        """Note that a port has joined."""
        self._since[port] = self._clock()

    def left(self, port: Hashable) -> None:
        """Note that a port has left."""
        self._since.pop(port, None)
        self._gone.append((self._clock() + WAIT_S, port))
        self._ask()

    def _ask(self) -> None:
        if self._asking:
            self._again = True
        elif self._connections.peers():
            self._asking = True
            self._again = False
            self._neighbours().add_done_callback(self._told)

    def _is_doubtful(self, mac: bytes, began: float) -> bool:
        port = self._owner_of(mac)
        return port is None or self._since.get(port, began) > began

    def tick(self, now: float) -> None:
        """End the doubts whose time is over."""
        while self._doubts and self._doubts[0].end <= now:
            self._connections.reap(self._doubts.popleft().peers, SILENT_S)
        while self._gone and self._gone[0][0] <= now:
            self._end_flows(self._gone.popleft()[1])

    def deadline(self) -> float | None:
        """Return when to call ``tick``."""
        ends = [waiting[0][0] for waiting in (self._doubts, self._gone) if waiting]
        return min(ends, default=None)

    def _told(self, reply: Reply) -> None:
        self._asking = False
        pairs = reply.result if reply.ok and isinstance(reply.result, list) else []
        peers = self._connections.peers()
        doubted = {
            address
            for address, mac in ((ip_address(str(pair[0])), bytes.fromhex(str(pair[1]))) for pair in pairs)
            if address in peers and self._is_doubtful(mac, peers[address])
        }
        if doubted:
            self._connections.probe(doubted)
            self._doubts.append(_Doubt(self._clock() + WAIT_S, doubted))
        if self._again:
            self._ask()

"""End the connections of VMs that have left, so that the other ends hear of it soon.

TCP itself notices a vanished peer after minutes. The switch knows at once that a port has left, but not which
IP addresses were behind it. Also, a VM may come back, and keeps its connections if it reconnects. So

1. a port leaves: the namespace is asked who its neighbours are, and those that have connections and whose
   Ethernet address is behind no port are *in doubt*;
2. their kernels are asked each second whether they are there, connection by connection
   (``forwarder.tcp_options.PROBING``);
3. after ``WAIT_S`` the connections of those that have acknowledged nothing meanwhile are reset.

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
        clock: Callable[[], float],
    ) -> None:
        """``neighbours`` asks for pairs of IP and MAC address (hexadecimal digits)."""
        self._connections = connections
        self._neighbours = neighbours
        self._owner_of = owner_of
        self._clock = clock
        self._asking = False
        self._again = False
        self._doubts: deque[_Doubt] = deque()

    def left(self) -> None:
        """Note that a port has left."""
        if self._asking:
            self._again = True
        elif self._connections.peers():
            self._asking = True
            self._again = False
            self._neighbours().add_done_callback(self._told)

    def tick(self, now: float) -> None:
        """End the doubts whose time is over."""
        while self._doubts and self._doubts[0].end <= now:
            self._connections.reap(self._doubts.popleft().peers, SILENT_S)

    def deadline(self) -> float | None:
        """Return when to call ``tick``."""
        return self._doubts[0].end if self._doubts else None

    def _told(self, reply: Reply) -> None:
        self._asking = False
        pairs = reply.result if reply.ok and isinstance(reply.result, list) else []
        peers = self._connections.peers()
        doubted = {
            address
            for address, mac in ((ip_address(str(pair[0])), bytes.fromhex(str(pair[1]))) for pair in pairs)
            if address in peers and self._owner_of(mac) is None
        }
        if doubted:
            self._connections.probe(doubted)
            self._doubts.append(_Doubt(self._clock() + WAIT_S, doubted))
        if self._again:
            self.left()

"""Find the port of the switch that a frame came through: the only certain fact about a guest.

A guest may write any address, identifier or name into a frame. The port that the frame came through is a
fact: the worker of the gateway's port notes it in its MAC table before it delivers the frame. The table lies
in the worker's stats page. The supervisor passes it on, read-only. A part of the gateway looks up the port of
an Ethernet source here, without a message and without a wait. Shares, leases and limits belong to ports.

The supervisor reuses port numbers, so a ``Port`` stands for one attachment of one VM. The stats page has the
attachment of each number, too: the worker notes it before it takes the first frame of a VM. The supervisor
announces that a port has left before it uses the number again. It announces a port before a worker reads
the first frame of its VM. That frame may be seen here first: then the announcements are read before it.

    port 3 was attached at epoch 11; its VM leaves, and another one gets number 3 at epoch 33. A frame of the
    new VM is read before the two announcements. The page says (3, 33), which is no present port yet, so
    the announcements are read. The frame counts for (3, 33), and (3, 11) has left before it.
"""

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from forwarder import _core
from gateway.seen import Seen


class Port(NamedTuple):
    """One attachment of a VM."""

    number: int
    born: int

    def __str__(self) -> str:
        return f"port {self.number}"


NO_PORT = Port(0, 0)
"""Of an address that no worker has heard."""


class Ports:
    """The present ports, and the MAC addresses behind them."""

    def __init__(self) -> None:
        self._born: dict[int, int] = {}
        self._page: _core.StatsPage | None = None
        self._joined: list[Callable[[Port], None]] = []
        self._left: list[Callable[[Port], None]] = []
        self.seen = Seen()
        """The IP addresses that present ports use."""
        self.catch_up: Callable[[], object] = lambda: None
        """Reads the announcements that have come."""

    def __contains__(self, port: object) -> bool:
        return isinstance(port, Port) and self._born.get(port.number) == port.born

    def of(self, mac: bytes) -> Port | None:
        """Return the port that last sent from ``mac`` (6 bytes); None if it has left or is unknown."""
        port = Port(*self._page.port_of(mac)) if self._page is not None else NO_PORT
        if port.number and port not in self:
            self.catch_up()
        return port if port in self else None

    def when_joined(self, call: Callable[[Port], None]) -> None:
        """Call ``call`` with each port that joins from now on."""
        self._joined.append(call)

    def when_left(self, call: Callable[[Port], None]) -> None:
        """Call ``call`` with each port that leaves from now on."""
        self._left.append(call)

    def map(self, stats: int) -> None:
        """Use the MAC table of this stats page from now on; closes the descriptor.

        Raises OSError, ValueError.
        """
        try:
            self._page = _core.StatsPage(stats)
        finally:
            os.close(stats)

    def use(self, port: Port, addresses: Iterable[int]) -> None:
        """Note which IP addresses a port uses; a port that has left is ignored."""
        if port in self:
            self.seen.note(port, addresses)

    def are(self, ports: Iterable[Port]) -> None:
        """Note all present ports."""
        self._born = dict(ports)

    def joined(self, port: Port) -> None:
        """Note that a port has joined."""
        self._born[port.number] = port.born
        for call in self._joined:
            call(port)

    def left(self, port: Port) -> None:
        """Note that a port has left; an unknown port is ignored."""
        if port in self:
            del self._born[port.number]
            self.seen.forget(port)
            for call in self._left:
                call(port)

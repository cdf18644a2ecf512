"""Which port of the switch a frame came through: the one thing that is certain about a guest.

Whatever a guest writes into a frame, a packet or a message (addresses, identifiers, names) is its word. The
switch knows through which port a frame came, and the worker of the gateway's port notes it in its MAC table
before it delivers the frame. That table lies in the block of the port; the supervisor hands it over, to be
read only. So a part of the gateway that has an Ethernet source asks here whose it is, without a message and
without a wait, and shares, leases and limits belong to ports.

A number is given again after its port has gone; a ``Port`` is one attachment of one VM for good. The
supervisor says which there are, and which have left, before it uses a number again.
"""

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from forwarder import _core


class Port(NamedTuple):
    """One attachment of a VM."""

    number: int
    born: int

    def __str__(self) -> str:
        return f"port {self.number}"


class Ports:
    """The ports there are, and the addresses behind them."""

    def __init__(self) -> None:
        self._born: dict[int, int] = {}
        self._block: _core.StatsPage | None = None
        self._joined: list[Callable[[Port], None]] = []
        self._left: list[Callable[[Port], None]] = []

    def __contains__(self, port: object) -> bool:
        return isinstance(port, Port) and self._born.get(port.number) == port.born

    def of(self, mac: bytes) -> Port | None:
        """Return the port that ``mac`` (6 bytes) was heard through last; None: it has gone or is unknown."""
        number = self._block.port_of(mac) if self._block is not None else 0
        born = self._born.get(number)
        return None if born is None else Port(number, born)

    def when_joined(self, call: Callable[[Port], None]) -> None:
        """Call ``call`` with each port that joins from now on."""
        self._joined.append(call)

    def when_left(self, call: Callable[[Port], None]) -> None:
        """Call ``call`` with each port that leaves from now on."""
        self._left.append(call)

    def map(self, block: int) -> None:
        """Read the MAC table of a block from now on; the descriptor is closed. Raises OSError, ValueError."""
        try:
            self._block = _core.StatsPage(block)
        finally:
            os.close(block)

    def are(self, ports: Iterable[Port]) -> None:
        """Note which ports there are."""
        self._born = dict(ports)

    def joined(self, port: Port) -> None:
        """Note that a port is there."""
        self._born[port.number] = port.born
        for call in self._joined:
            call(port)

    def left(self, port: Port) -> None:
        """Note that a port has gone. One that is not there is ignored."""
        if port in self:
            del self._born[port.number]
            for call in self._left:
                call(port)

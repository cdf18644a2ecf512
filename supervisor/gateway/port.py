"""The port of the gateway: made of the gateway's TAP, and detached when the gateway's process ends.

The port is pinned to the gateway's MAC address, so no VM can send from that address. Its worker keeps a MAC
table, which tells the gateway the port of each MAC address (``gateway.ports``). The registry holds the port;
this object holds its record only to know which port it is.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from forwarder.errors import LocalError
from forwarder.names import GATEWAY_MAC, Policy, PortId, PortRecord
from supervisor.attach.addresses import PortOptions
from supervisor.gateway.owners import Owners
from supervisor.ports.view import PortView

NAME = "gateway"
"""Of the port, and of its transport."""
URL = "gateway://"


class PortHandler(Protocol):
    """The part that makes and ends ports; called from the loop."""

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        """Make a port of a descriptor, which the owner closes then. Raises LocalError."""

    def gone(self, port: PortId, reason: str) -> None:
        """End a port whose device is of no use any more; ignore a port that has left."""

    def views(self) -> Iterable[PortView]:
        """Return every port."""

    def own(self, owners: Mapping[str, int]) -> None:
        """Let guards know that these addresses, and no others, belong to these ports."""

    def current(self, port: PortId) -> PortRecord | None:
        """Return a port as it is now; None if it has left."""

    def stats_page(self, number: int) -> int:
        """Return the descriptor of a present port's stats page; the owner closes it."""


class GatewayPort:
    """The port of one gateway, while there is one."""

    def __init__(self, handler: PortHandler) -> None:
        self._handler = handler
        self._record: PortRecord | None = None
        self.owners = Owners()

    @property
    def exists(self) -> bool:
        """Whether the port has not been released yet."""
        return self._record is not None

    def is_port(self, record: PortRecord) -> bool:
        """Whether ``record`` is of the gateway's port."""
        own = self._record
        return own is not None and (record.port, record.born) == (own.port, own.born)

    def name_of(self, port: PortId) -> str | None:
        """Return the name of a port of the switch; None if it has left."""
        record = self._handler.current(port)
        return None if record is None else record.name

    def present(self) -> list[list[int]]:
        """Return number and attachment of every port of the switch."""
        return [[view.record.port, view.record.born] for view in self._handler.views()]

    def took_over(self, records: Iterable[PortRecord]) -> None:
        """Detach the port of the gateway that ended with the supervisor before."""
        for record in records:
            if record.is_gateway:
                self._record = record
                self.detach("its gateway ended with the supervisor before")

    def arrive(self, tap: int) -> int:
        """Make the port of a TAP; return a descriptor of its stats page, which the caller closes.

        Raises LocalError; the TAP is closed then.
        """
        settings = PortOptions(NAME, Policy(pinned=(GATEWAY_MAC,), guard=False))
        try:
            self._record = self._handler.arrive(NAME, tap, settings, URL)
        except LocalError as error:
            os.close(tap)
            raise LocalError(f"the gateway gets no port: {error}") from None
        try:
            return os.open(f"/proc/self/fd/{self._handler.stats_page(self._record.port)}", os.O_RDONLY)
        except OSError as error:
            raise LocalError(f"the gateway cannot be given its MAC table: {error.strerror}") from None

    def detach(self, reason: str) -> None:
        """End the port, if it exists: its device is of no use any more."""
        if self._record is not None:
            self._handler.gone(self._record.id, reason)

    def released(self, record: PortRecord) -> bool:
        """Note that a port and its worker are gone; return whether it was the gateway's."""
        self.owners.released(record.port)
        if not self.is_port(record):
            return False
        self._record = None
        return True

    def own(self, addresses: Sequence[object], leases: Sequence[object]) -> None:
        """Let guards know the owners of the LAN's addresses. Raises PeerError for a malformed list."""
        if self._record is not None:
            ports = (view.record.id for view in self._handler.views())
            self._handler.own(self.owners.told(addresses, leases, self._record.id, ports))

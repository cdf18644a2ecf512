"""Whose the addresses of the LAN are, from what the gateway says and which ports there are."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import cast

from forwarder.errors import PeerError
from forwarder.names import PortId


class Owners:
    """The ports that have the addresses of the LAN."""

    def __init__(self) -> None:
        self.ports: Mapping[str, int] = {}
        """Address to number of the port."""

    def told(
        self, own: Sequence[object], leases: Sequence[object], gateway: PortId, ports: Iterable[PortId]
    ) -> Mapping[str, int]:
        """Take what the gateway says, and return it as ``ports``.

        ``own`` are its addresses, ``leases`` (address, port, born); a lease whose port has gone is left out.
        Raises PeerError for what is no such list.
        """
        there = set(ports)
        found: dict[str, int] = {}
        try:
            for address, number, born in cast(Iterable[tuple[str, int, int]], leases):
                if PortId(number, born) in there:
                    found[str(ip_address(address))] = number
            found |= {str(ip_address(str(address))): gateway.port for address in own}
        except (TypeError, ValueError) as error:
            raise PeerError(f"owners that are none: {error}") from None
        self.ports = found
        return found

    def released(self, number: int) -> None:
        """Forget the addresses of a port that has gone: another may get its number at once."""
        self.ports = {address: port for address, port in self.ports.items() if port != number}

    def by_port(self) -> dict[int, list[str]]:
        """Return the addresses of each port."""
        found: dict[int, list[str]] = {}
        for address, port in self.ports.items():
            found.setdefault(port, []).append(address)
        return found

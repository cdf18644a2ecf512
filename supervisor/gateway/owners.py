"""Find the port that each address of the LAN belongs to, from the gateway's list and the present ports."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import cast

from forwarder.errors import PeerError
from forwarder.names import PortId


class Owners:
    """The owners of the addresses of the LAN."""

    def __init__(self) -> None:
        self.ports: Mapping[str, int] = {}
        """Address to number of the port."""

    def told(
        self, own: Sequence[object], leases: Sequence[object], gateway: PortId, ports: Iterable[PortId]
    ) -> Mapping[str, int]:
        """Take the gateway's list; return address to number of the port.

        ``own`` are its own addresses, a lease is (address, port, attachment). A lease of a port that has left
        is left out. Raises PeerError for a malformed list.
        """
        there = set(ports)
        found: dict[str, int] = {}
        try:
            for address, number, born in cast(Iterable[tuple[str, int, int]], leases):
                if PortId(number, born) in there:
                    found[str(ip_address(address))] = number
            found |= {str(ip_address(str(address))): gateway.port for address in own}
        except (TypeError, ValueError) as error:
            raise PeerError(f"a malformed list of owners: {error}") from None
        self.ports = found
        return found

    def released(self, number: int) -> None:
        """Forget the addresses of a port that has left: another one may get its number at once."""
        self.ports = {address: port for address, port in self.ports.items() if port != number}

    def by_port(self) -> dict[int, list[str]]:
        """Return the addresses of each port."""
        found: dict[int, list[str]] = {}
        for address, port in self.ports.items():
            found.setdefault(port, []).append(address)
        return found

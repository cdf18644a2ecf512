"""Whose the addresses of the LAN are, from what the gateway says and which ports there are."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import cast

from forwarder.errors import PeerError
from forwarder.names import PortId


def owners(
    own: Sequence[object], leases: Sequence[object], gateway: PortId, ports: Iterable[PortId]
) -> Mapping[str, int]:
    """Return address to port number: ``own`` are the gateway's, ``leases`` (address, port, born).

    A lease whose port has gone is left out. Raises PeerError for what is no such list.
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
    return found

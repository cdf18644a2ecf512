"""Refuse a subnet for the gateway that overlaps a network of the host.

The namespace would work, but guests could not reach the hosts of that network, without any error. A default
route is no overlap, nor is a part of one that is larger than any network: OpenVPN writes its own
as 0.0.0.0/1 and 128.0.0.0/1.
"""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from forwarder.errors import LocalError
from gateway.settings import LARGEST


def check_host(subnet: IPv4Network) -> None:
    """Raise LocalError if ``subnet`` overlaps a network of this host."""
    with open("/proc/net/route") as routes:
        check(subnet, routes.read())


def check(subnet: IPv4Network, routes: str) -> None:
    """Raise LocalError if ``subnet`` overlaps one of ``routes``, the text of ``/proc/net/route``."""
    for interface, network in _networks(routes):
        if network.prefixlen >= LARGEST and network.overlaps(subnet):
            raise LocalError(
                f"the gateway's {subnet} overlaps {network} of the host's {interface}; "
                "choose another --subnet, like 10.77.0.0/24"
            )


def _networks(routes: str) -> Iterator[tuple[str, IPv4Network]]:
    for line in routes.splitlines()[1:]:
        interface, destination, _, _, _, _, _, mask, *_ = line.split()
        address = IPv4Address(socket.ntohl(int(destination, 16)))
        yield interface, IPv4Network((int(address), f"{socket.ntohl(int(mask, 16)):032b}".count("1")))

"""Addresses as the kernel takes them, so that a process without a resolver can connect to them.

``fe80::1%eth0`` is an address and the name of an interface, which has to be looked up; in a cell
it cannot be.
"""

import socket
from contextlib import suppress
from typing import NamedTuple

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""Address and port; and, for IPv6, a flow label (0) and the number of an interface (ipv6(7))."""


class Servers(NamedTuple):
    """The servers for names, best first."""

    addresses: tuple[SocketAddress, ...]
    by_tcp: bool = False
    """Whether to ask them by TCP alone."""


def numeric(host: str, port: int) -> SocketAddress:
    """Return an IP address and a port without a name in them; an interface that is not there has number 0."""
    address, percent, zone = host.partition("%")
    if not percent:
        return address, port
    with suppress(OSError):
        return address, port, 0, socket.if_nametoindex(zone)
    return address, port, 0, int(zone) if zone.isascii() and zone.isdecimal() and len(zone) < 10 else 0


def port_number(text: str) -> int | None:
    """Return the port, 0 to 65535, that ``text`` writes in at most five digits; None if it writes none."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        return None
    number = int(text)
    return number if number <= 0xFFFF else None

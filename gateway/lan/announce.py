"""Router advertisements: the LAN's IPv6 prefix, its MTU, its resolver, and whether there is a default route.

RFC 4861 6.2 with RFC 8106 (resolver and search list), sans-I/O: ``Announcer`` says when which frame is due. A
solicitation is answered at once, to its sender only. An advertisement to all is sent every ``EVERY_S``, soon
after a VM has come, and at once when the host's default route has come or gone. The gateway is a default
router (a lifetime above zero) only while the host has a default route for IPv6; otherwise guests that try
IPv6 first would wait for answers that cannot come. The prefix is announced in any case, so guests reach each
other, the gateway and the host alias. Guests form their own addresses (RFC 4862); there is no DHCPv6.
"""

import struct
from collections.abc import Callable
from ipaddress import IPv6Address

from forwarder.names import GATEWAY_MAC
from gateway.lan.frames import Solicitation, icmpv6
from gateway.settings import Settings

EVERY_S = 60.0
"""Time between two advertisements to all."""

QUICK_S, QUICKLY = 4.0, 3
"""After a VM has come, advertisements are sent to all at this distance and so many times. A solicitation from
before its link was up is lost, and its next one may come late (RFC 7559). RFC 4861 wants three seconds in
between."""

WATCH_S = 5.0
"""Time between two checks of the host's routes."""

ROUTER_S = 180
"""A lifetime for which three advertisements may be lost."""

PREFIX_S = 3600

_ADVERTISEMENT = 134
_HEAD = struct.Struct(">BBHBBHII")
_PREFIX = struct.Struct(">BBBBIII16s")
_MTU = struct.Struct(">BBHI")
_RESOLVER = struct.Struct(">BBHI16s")
_SEARCH = struct.Struct(">BBHI")
_LINK_ADDRESS, _PREFIX_INFORMATION, _LINK_MTU, _RDNSS, _DNSSL = 1, 3, 5, 25, 31
_ON_LINK_AND_AUTONOMOUS = 0xC0
_HOPS = 64
_ALL_NODES = IPv6Address("ff02::1").packed
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_UNSPECIFIED = bytes(16)


def link_local(mac: bytes) -> bytes:
    """Return the link-local address that the kernel makes of an Ethernet address (RFC 4291, appendix A)."""
    return IPv6Address("fe80::").packed[:8] + interface_id(mac)


def interface_id(mac: bytes) -> bytes:
    """Return the interface identifier (8 bytes) formed from an Ethernet address."""
    return bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


def mac_of(identifier: bytes) -> bytes:
    """Return the Ethernet address from which an ``interface_id`` was formed."""
    return bytes((identifier[0] ^ 2,)) + identifier[1:3] + identifier[5:]


class Announcer:
    """The content of advertisements, and their times."""

    def __init__(
        self, settings: Settings, has_way_out: Callable[[], bool], send: Callable[[bytes], None]
    ) -> None:
        """``has_way_out`` says whether the host has a default route for IPv6; ``send`` sends a frame."""
        self._settings = settings
        self._has_way_out = has_way_out
        self._send = send
        self._way_out = has_way_out()
        self._quickly = QUICKLY
        self._due = 0.0
        self._look = 0.0

    def joined(self, now: float) -> None:
        """Note that a VM has come."""
        self._due = min(self._due, now + QUICK_S)
        self._quickly = QUICKLY

    def solicited(self, heard: Solicitation) -> None:
        """Answer the solicitation of a guest."""
        self._tell(heard.mac, _ALL_NODES if heard.source == _UNSPECIFIED else heard.source)

    def tick(self, now: float) -> None:
        """Send an advertisement to all, if it is due."""
        if now >= self._look:
            self._look = now + WATCH_S
            before, self._way_out = self._way_out, self._has_way_out()
            if before != self._way_out:
                self._due = now
        if now >= self._due:
            self._due = now + (QUICK_S if self._quickly else EVERY_S)
            self._quickly = max(0, self._quickly - 1)
            self._tell(_ALL_NODES_MAC, _ALL_NODES)

    def deadline(self) -> float:
        """When to call ``tick``."""
        return min(self._due, self._look)

    def _tell(self, mac: bytes, to: bytes) -> None:
        self._send(icmpv6(GATEWAY_MAC, mac, link_local(GATEWAY_MAC), to, self._advertisement()))

    def _advertisement(self) -> bytes:
        settings = self._settings
        lifetime = ROUTER_S if self._way_out else 0
        prefix = settings.policy.prefix
        search = _search(settings.search)
        return b"".join(
            (
                _HEAD.pack(_ADVERTISEMENT, 0, 0, _HOPS, 0, lifetime, 0, 0),
                bytes((_LINK_ADDRESS, 1)) + GATEWAY_MAC,
                _MTU.pack(_LINK_MTU, 1, 0, settings.mtu),
                _PREFIX.pack(
                    *(_PREFIX_INFORMATION, 4, prefix.prefixlen, _ON_LINK_AND_AUTONOMOUS),
                    *(PREFIX_S, PREFIX_S, 0, prefix.network_address.packed),
                ),
                _RESOLVER.pack(_RDNSS, 3, 0, PREFIX_S, settings.gateway6.packed),
                _SEARCH.pack(_DNSSL, 1 + len(search) // 8, 0, PREFIX_S) + search,
            )
        )


def _search(names: tuple[str, ...]) -> bytes:
    """Return names in DNS form, as many as one option holds, padded to units of 8 bytes."""
    found = b""
    for name in names:
        more = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
        if len(found) + len(more) > 254 * 8:
            break
        found += more
    return found + bytes(-len(found) % 8)


def has_default_route(routes: str) -> bool:
    """Whether ``routes``, the text of ``/proc/net/ipv6_route``, has a default route that rejects nothing."""
    for line in routes.splitlines():
        destination, length, *_, flags, device = line.split()
        if (destination, length) == ("0" * 32, "00") and device != "lo" and int(flags, 16) & _ROUTE_UP:
            return True
    return False


_ROUTE_UP = 0x0001

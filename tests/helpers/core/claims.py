"""Frames that claim something (ARP, neighbour discovery, routers, DHCP), and what may hide them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

BROADCAST = b"\xff" * 6
ALL_NODES = bytes.fromhex("333300000001")
ARP, IPV4, IPV6, MAC_CONTROL = b"\x08\x06", b"\x08\x00", b"\x86\xdd", b"\x88\x08"
HOP_BY_HOP, ICMP, TCP, UDP, ROUTING, FRAGMENT, AH, ICMPV6, OPTIONS = 0, 1, 6, 17, 43, 44, 51, 58, 60
RS, RA, NS, NA, REDIRECT = 133, 134, 135, 136, 137
LINK_LOCAL = "fe80::7"


def ethernet(source: bytes, kind: bytes, payload: bytes, to: bytes = BROADCAST) -> bytes:
    return (to + source + kind + payload).ljust(60, b"\0")


def tagged(frame: bytes, *tags: bytes) -> bytes:
    """Put VLAN tags, or anything else, between the addresses and the type."""
    return frame[:12] + b"".join(tags) + frame[12:]


def snap(frame: bytes, organisation: bytes = bytes(3)) -> bytes:
    """Put the type behind an LLC/SNAP header."""
    payload = frame[12:]
    return frame[:12] + struct.pack("!H", 6 + len(payload)) + b"\xaa\xaa\x03" + organisation + payload


def of_length(length: int, frame: bytes) -> bytes:
    """Say another length in front of an LLC header."""
    return frame[:12] + struct.pack("!H", length) + frame[14:]


def arp(
    source: bytes,
    sender: str,
    target: str,
    *,
    reply: bool = False,
    mac: bytes = b"",
    to: bytes = BROADCAST,
    hardware: int = 1,
) -> bytes:
    """Say that ``sender`` is behind ``mac``, or ``source``."""
    words = struct.pack("!HHBBH", hardware, 0x0800, 6, 4, 2 if reply else 1) + (mac or source)
    words += IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    return ethernet(source, ARP, words, to)


def ipv4(
    source: bytes, payload: bytes, *, protocol: int = UDP, options: bytes = b"", fragment: int = 0
) -> bytes:
    first = 0x45 + len(options) // 4
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(options) + len(payload), 1, fragment, 64, protocol, 0)
    return ethernet(source, IPV4, head + bytes(4) + b"\xff" * 4 + options + payload)


def ipv6(source: bytes, payload: bytes, *, next_: int = ICMPV6, sender: str = LINK_LOCAL) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_, 255)
    addresses = IPv6Address(sender).packed + IPv6Address("ff02::1").packed
    return ethernet(source, IPV6, head + addresses + payload, ALL_NODES)


def extended(source: bytes, payload: bytes, *kinds: int, last: int = ICMPV6, offset: int = 0) -> bytes:
    """Put extension headers in front; ``offset``: of the fragment, in units of 8 bytes, if there is one."""
    headers = b""
    for kind, following in zip(kinds, (*kinds[1:], last), strict=True):
        if kind == FRAGMENT:
            headers += struct.pack("!BBHI", following, 0, offset << 3 | 1, 7)
        elif kind == AH:
            headers += bytes((following, 4)) + bytes(22)
        else:
            headers += bytes((following, 0)) + b"\1\4" + bytes(4)
    return ipv6(source, headers + payload, next_=kinds[0])


def udp(port: int, source_port: int = 67) -> bytes:
    return struct.pack("!HHHH", source_port, port, 28, 0) + bytes(20)


def icmpv6(kind: int, target: str = "", option: bytes = b"") -> bytes:
    """A message of neighbour discovery; ``option`` has type, length and contents."""
    body = struct.pack("!BBHI", kind, 0, 0, 0x60000000)
    body += IPv6Address(target).packed if target else b""
    return body + option


def link_option(mac: bytes, *, target: bool) -> bytes:
    return bytes((2 if target else 1, 1)) + mac


def owner(address: str) -> bytes:
    """An address as guards have it: 16 bytes."""
    found = ip_address(address)
    return found.packed if found.version == 6 else b"\0" * 10 + b"\xff\xff" + found.packed

"""Read and write the Ethernet frames that the gateway answers itself: pure bytes.

The packet sockets hear UDP and router solicitations for the gateway (``filters``). A frame that is cut short,
has a wrong length or is a fragment is ignored. Checksums of received frames are not checked: a frame of a TAP
may have a promise of a checksum instead (virtio_net_hdr), and no bit can change between a guest's memory and
this process. Sent frames have all checksums.

Sources: IEEE 802.3, RFC 791 (IPv4), RFC 8200 (IPv6), RFC 768 (UDP), RFC 4861 4.1 (router solicitation).
"""

import struct
from typing import NamedTuple

IPV4, IPV6 = 0x0800, 0x86DD
"""EtherTypes."""

UDP, ICMPV6, TCP = 17, 58, 6
"""Protocols."""

SOLICITATION, NEIGHBOUR = 133, 135
HEADERS = {4: 28, 6: 48}
"""Bytes of IP and UDP headers in front of a datagram, by version."""

_ETHERNET = struct.Struct(">6s6sH")
_IP4 = struct.Struct(">BBHHHBBH4s4s")
_IP6 = struct.Struct(">IHBB16s16s")
_UDP = struct.Struct(">HHHH")
_PORTS = struct.Struct(">HH")
_FRAGMENT = 0x3FFF
_HOPS = 64
_LINK_HOPS = 255
"""Hop limit of a packet that has passed no router (RFC 4861)."""


class Datagram(NamedTuple):
    """A UDP datagram and the Ethernet address that it came from or goes to; IP addresses are bytes."""

    mac: bytes
    source: bytes
    destination: bytes
    source_port: int
    port: int
    payload: bytes

    def answer(self, payload: bytes) -> "Datagram":
        """Return the same addresses in the opposite direction."""
        return Datagram(self.mac, self.destination, self.source, self.port, self.source_port, payload)


class Solicitation(NamedTuple):
    """A router solicitation."""

    mac: bytes
    source: bytes


class Trial(NamedTuple):
    """A guest's probe for a duplicate of its address, before it uses it (RFC 4862 5.4)."""

    mac: bytes
    address: bytes


class Opening(NamedTuple):
    """The first segment of a TCP connection: it shows the port that the connection belongs to."""

    mac: bytes
    source: bytes
    source_port: int


def parse(frame: bytes) -> Datagram | Solicitation | Trial | Opening | None:
    """Read a frame; None if it is of no known kind, or malformed."""
    found = _packet(frame)
    if found is None:
        return None
    mac, number, source, destination, body = found
    if number == UDP and len(body) >= _UDP.size:
        source_port, port, length, _ = _UDP.unpack_from(body)
        if _UDP.size <= length <= len(body):
            return Datagram(mac, source, destination, source_port, port, body[_UDP.size : length])
    elif number == TCP and len(body) >= 20:
        return Opening(mac, source, _PORTS.unpack_from(body)[0])
    elif number == ICMPV6 and len(body) >= 8 and body[0] == SOLICITATION:
        return Solicitation(mac, source)
    elif number == ICMPV6 and len(body) >= 24 and body[0] == NEIGHBOUR and not any(source):
        return Trial(mac, body[8:24])
    return None


def _packet(frame: bytes) -> tuple[bytes, int, bytes, bytes, bytes] | None:
    """Return Ethernet source, protocol, IP source and destination, and body of a frame that is whole."""
    if len(frame) < _ETHERNET.size:
        return None
    _, mac, kind = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    if kind == IPV4 and len(packet) >= _IP4.size:
        first, _, total, _, fragment, _, number, _, source, destination = _IP4.unpack_from(packet)
        start = (first & 15) * 4
        if first >> 4 == 4 and not fragment & _FRAGMENT and _IP4.size <= start <= total <= len(packet):
            return mac, number, source, destination, packet[start:total]
    elif kind == IPV6 and len(packet) >= _IP6.size:
        first, length, number, _, source, destination = _IP6.unpack_from(packet)
        if first >> 28 == 6 and _IP6.size + length <= len(packet):
            return mac, number, source, destination, packet[_IP6.size : _IP6.size + length]
    return None


def udp(mac: bytes, datagram: Datagram) -> bytes:
    """Return the frame from ``mac`` that carries a datagram, whole: it must fit the LAN's MTU."""
    length = _UDP.size + len(datagram.payload)
    bare = _UDP.pack(datagram.source_port, datagram.port, length, 0) + datagram.payload
    total = _checksum(_pseudo(datagram.source, datagram.destination, UDP, length) + bare) or 0xFFFF
    body = bare[:6] + total.to_bytes(2, "big") + bare[8:]
    ends = (datagram.source, datagram.destination)
    return _ethernet(mac, datagram.mac, ends) + _packet_of(ends, UDP, body, _HOPS)


def icmpv6(mac: bytes, to: bytes, source: bytes, destination: bytes, body: bytes) -> bytes:
    """Return the frame from ``mac`` to the Ethernet address ``to``; bytes 2 and 3 of ``body`` are zero."""
    total = _checksum(_pseudo(source, destination, ICMPV6, len(body)) + body)
    summed = body[:2] + total.to_bytes(2, "big") + body[4:]
    ends = (source, destination)
    return _ethernet(mac, to, ends) + _packet_of(ends, ICMPV6, summed, _LINK_HOPS)


def _ethernet(mac: bytes, to: bytes, ends: tuple[bytes, bytes]) -> bytes:
    return _ETHERNET.pack(to, mac, IPV4 if len(ends[0]) == 4 else IPV6)


def _packet_of(ends: tuple[bytes, bytes], number: int, body: bytes, hops: int) -> bytes:
    if len(ends[0]) == 4:
        fields = (0x45, 0, _IP4.size + len(body), 0, 0, hops, number)
        total = _checksum(_IP4.pack(*fields, 0, *ends))
        return _IP4.pack(*fields, total, *ends) + body
    return _IP6.pack(6 << 28, len(body), number, hops, *ends) + body


def _pseudo(source: bytes, destination: bytes, number: int, length: int) -> bytes:
    return source + destination + struct.pack(">II", length, number)


def _checksum(data: bytes) -> int:
    """Return the one's complement of the one's complement sum of 16-bit words (RFC 1071)."""
    number = int.from_bytes(data + bytes(len(data) & 1), "big")
    total = number % 0xFFFF or (0xFFFF if number else 0)  # which 0xFFFF and 0 are both in this arithmetic
    return ~total & 0xFFFF

"""Read IP packets of guests: UDP, ICMP echo, ICMP errors and the SYN of a connection, IPv4 and IPv6.

Bytes in, values out. Nothing is copied, so a value is valid until the buffer is used again. ``parse`` reads
the IP header, with a fragment's offset (``fragments`` reassembles); ``read`` reads the payload. Checksums are
checked here, since no kernel has checked a guest's packet yet.
"""

import struct
from typing import NamedTuple

IP4 = struct.Struct(">BBHHHBBH4s4s")
IP6 = struct.Struct(">IHBB16s16s")
UDP = struct.Struct(">HHHH")
ECHO = struct.Struct(">BBHHH")
TCP = struct.Struct(">HHIIBBHHH")
_FRAGMENT = struct.Struct(">BBHI")
_DONT, _MORE, _OFFSET = 0x4000, 0x2000, 0x1FFF

TCP_NUMBER, UDP_NUMBER, ICMP_NUMBER, ICMP6_NUMBER = 6, 17, 1, 58
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
UNREACHABLE = {4: 3, 6: 1}
_FRAGMENT_HEADER, _OPTIONS = 44, (0, 60)
_MOST_OPTIONS = 4
"""Extension headers to skip, at most: as many as RFC 8200 allows in front of a fragment."""

_SYN, _ACK = 0x02, 0x10


class Fragment(NamedTuple):
    """Where a piece belongs."""

    ident: int
    offset: int
    more: bool


class Packet(NamedTuple):
    """An IP packet; addresses are 4 or 16 bytes."""

    source: bytes
    destination: bytes
    number: int
    """The number of the protocol in ``body``."""
    hops: int
    keep: bool
    """The don't-fragment bit."""
    body: memoryview | bytes
    fragment: Fragment | None

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.source) == 4 else 6


class Datagram(NamedTuple):
    """A UDP datagram."""

    source: bytes
    destination: bytes
    source_port: int
    port: int
    payload: memoryview | bytes


class Echo(NamedTuple):
    """An ICMP echo request; on its way back, the answer to one."""

    source: bytes
    destination: bytes
    ident: int
    sequence: int
    payload: memoryview | bytes


class Syn(NamedTuple):
    """The first segment of a connection."""

    source: bytes
    destination: bytes
    source_port: int
    port: int
    sequence: int


class Refusal(NamedTuple):
    """A guest's ICMP error about a datagram of ours."""

    source: bytes
    """The guest's."""
    code: int
    quoted: Datagram


Carried = Datagram | Echo | Syn | Refusal


class DamagedError(Exception):
    """A packet contradicts itself."""


def parse(data: memoryview) -> Packet | None:
    """Read an IP packet; None if it is neither IPv4 nor IPv6. Raises DamagedError."""
    version = data[0] >> 4 if len(data) else 0
    if version == 4:
        return _parse4(data)
    return _parse6(data) if version == 6 else None


def _parse4(data: memoryview) -> Packet:
    if len(data) < IP4.size:
        raise DamagedError
    first, _, total, ident, place, hops, number, _, source, destination = IP4.unpack_from(data)
    start = (first & 15) * 4
    if not IP4.size <= start <= total <= len(data) or not adds_up(data[:start]):
        raise DamagedError
    fragment = None
    if place & (_MORE | _OFFSET):
        fragment = Fragment(ident, (place & _OFFSET) * 8, bool(place & _MORE))
    return Packet(source, destination, number, hops, bool(place & _DONT), data[start:total], fragment)


def _parse6(data: memoryview) -> Packet:
    if len(data) < IP6.size:
        raise DamagedError
    _, length, number, hops, source, destination = IP6.unpack_from(data)
    body = data[IP6.size : IP6.size + length]
    if len(body) < length:
        raise DamagedError
    for _ in range(_MOST_OPTIONS):
        if number not in _OPTIONS:
            break
        if len(body) < 8:
            raise DamagedError
        number, size = body[0], body[1] * 8 + 8
        body = body[size:]
    if number != _FRAGMENT_HEADER:
        return Packet(source, destination, number, hops, True, body, None)
    if len(body) < _FRAGMENT.size:
        raise DamagedError
    number, _, place, ident = _FRAGMENT.unpack_from(body)
    fragment = Fragment(ident, place & 0xFFF8, bool(place & 1))
    return Packet(source, destination, number, hops, False, body[_FRAGMENT.size :], fragment)


def read(packet: Packet, *, summed: bool) -> Carried | None:
    """Read the payload of a whole packet; None if the relay does not carry its kind. Raises DamagedError.

    ``summed``: check the checksum. Otherwise the kernel has checked it, or it is still to be computed.
    """
    if packet.number == UDP_NUMBER:
        return _datagram(packet, summed=summed)
    if packet.number == TCP_NUMBER:
        return _syn(packet)
    if packet.number == (ICMP_NUMBER if packet.version == 4 else ICMP6_NUMBER):
        return _icmp(packet, summed=summed)
    return None


def _datagram(packet: Packet, *, summed: bool) -> Datagram:
    body = packet.body
    if len(body) < UDP.size:
        raise DamagedError
    source_port, port, length, checksum = UDP.unpack_from(body)
    if not UDP.size <= length <= len(body):
        raise DamagedError
    body = body[:length]
    if summed and (checksum or packet.version == 6) and not adds_up(body, pseudo(packet, UDP_NUMBER, length)):
        raise DamagedError
    return Datagram(packet.source, packet.destination, source_port, port, body[UDP.size :])


def _syn(packet: Packet) -> Syn | None:
    if len(packet.body) < TCP.size:
        raise DamagedError
    source_port, port, sequence, _, _, flags, *_ = TCP.unpack_from(packet.body)
    if flags & (_SYN | _ACK) != _SYN:
        return None
    return Syn(packet.source, packet.destination, source_port, port, sequence)


def _icmp(packet: Packet, *, summed: bool) -> Echo | Refusal | None:
    version, body = packet.version, packet.body
    if len(body) < ECHO.size:
        raise DamagedError
    start = b"" if version == 4 else pseudo(packet, ICMP6_NUMBER, len(body))
    if summed and not adds_up(body, start):
        raise DamagedError
    kind, code, _, ident, sequence = ECHO.unpack_from(body)
    if (kind, code) == (ECHO_REQUEST[version], 0):
        return Echo(packet.source, packet.destination, ident, sequence, body[ECHO.size :])
    if kind != UNREACHABLE[version]:
        return None
    quoted = _quoted(memoryview(body[ECHO.size :]), version)
    return None if quoted is None else Refusal(packet.source, code, quoted)


def _quoted(data: memoryview, version: int) -> Datagram | None:
    """Read the beginning of one of our own datagrams, as an error quotes it."""
    if version == 4:
        if len(data) < IP4.size:
            return None
        first, *_, number, _, source, destination = IP4.unpack_from(data)
        start = (first & 15) * 4
    else:
        if len(data) < IP6.size:
            return None
        _, _, number, _, source, destination = IP6.unpack_from(data)
        start = IP6.size
    if number != UDP_NUMBER or len(data) < start + UDP.size:
        return None
    source_port, port, _, _ = UDP.unpack_from(data, start)
    return Datagram(source, destination, source_port, port, b"")


def pseudo(packet: Packet | Datagram | Echo, number: int, length: int) -> bytes:
    """Return the pseudo header, which a checksum covers besides the payload (RFC 768, RFC 8200 8.1)."""
    return packet.source + packet.destination + struct.pack(">II", length, number)


def adds_up(data: memoryview | bytes, start: bytes = b"") -> bool:
    """Whether one's complement of all 16-bit words is zero, as with a right checksum."""
    return remainder(data, start) == 0


def remainder(data: memoryview | bytes, start: bytes = b"") -> int:
    """Return the one's complement sum of all 16-bit words modulo 65,535, so 0xFFFF is 0."""
    total = int.from_bytes(data, "big") << (8 * (len(data) & 1))
    return (total + int.from_bytes(start, "big")) % 0xFFFF

"""IP packets of the TUN device, as far as the gateway carries them: UDP and ICMP echo, IPv4 and IPv6.

Purely bytes in and values out. Each packet has a ``virtio_net_hdr`` in front. Checksums of UDP and ICMP are
left to the kernel both ways: what it gives was checked or never left the machine, and what it gets says
where a checksum belongs (``csum_start``, ``csum_offset``) and has the pseudo header's sum there. Only the 20
bytes of an IPv4 header are summed here.

Fragments and IPv6 extension headers are not carried: guests that fragment their datagrams are told nothing,
the counter ``not_carried`` tells the operator.
"""

import struct
from typing import NamedTuple

VNET_HEADER = struct.Struct("=BBHHHH")
LONGEST = 65535 + VNET_HEADER.size

_NEEDS_CSUM = 1
_IP4 = struct.Struct(">BBHHHBBH4s4s")
_IP6 = struct.Struct(">IHBB16s16s")
_UDP = struct.Struct(">HHHH")
_ECHO = struct.Struct(">BBHHH")
_FRAGMENT = 0x3FFF
_UDP_NUMBER, _ICMP_NUMBER, _ICMP6_NUMBER = 17, 1, 58
_HOPS = 64

ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}


class Datagram(NamedTuple):
    """A UDP datagram; addresses are 4 or 16 bytes."""

    source: bytes
    destination: bytes
    source_port: int
    port: int
    payload: bytes


class Echo(NamedTuple):
    """An ICMP echo request; on its way back, the answer to one."""

    source: bytes
    destination: bytes
    ident: int
    sequence: int
    payload: bytes


def parse(data: bytes) -> Datagram | Echo | None:
    """Read what the TUN device gave; None for all that is not carried, and for whatever is malformed."""
    packet = _unwrap(data[VNET_HEADER.size :])
    if packet is None or len(packet[3]) < _UDP.size:
        return None
    number, source, destination, body = packet
    version = 4 if len(source) == 4 else 6
    if number == _UDP_NUMBER:
        source_port, port, length, _ = _UDP.unpack_from(body)
        if _UDP.size <= length <= len(body):
            return Datagram(source, destination, source_port, port, body[_UDP.size : length])
    elif number == (_ICMP_NUMBER if version == 4 else _ICMP6_NUMBER):
        kind, code, _, ident, sequence = _ECHO.unpack_from(body)
        if (kind, code) == (ECHO_REQUEST[version], 0):
            return Echo(source, destination, ident, sequence, body[_ECHO.size :])
    return None


def _unwrap(packet: bytes) -> tuple[int, bytes, bytes, bytes] | None:
    """Return protocol, source, destination and body of an IP packet that is whole."""
    if len(packet) >= _IP4.size and packet[0] >> 4 == 4:
        first, _, total, _, fragment, _, number, _, source, destination = _IP4.unpack_from(packet)
        start = (first & 15) * 4
        if not fragment & _FRAGMENT and _IP4.size <= start <= total <= len(packet):
            return number, source, destination, packet[start:total]
    elif len(packet) >= _IP6.size and packet[0] >> 4 == 6:
        _, length, number, _, source, destination = _IP6.unpack_from(packet)
        if _IP6.size + length <= len(packet):
            return number, source, destination, packet[_IP6.size : _IP6.size + length]
    return None


def build(packet: Datagram | Echo, ident: int) -> list[bytes]:
    """Return the buffers to write for a datagram or an echo *reply*.

    ``ident`` tells the fragments of this packet from another's, should the guest's MTU need them.
    """
    version = 4 if len(packet.source) == 4 else 6
    if isinstance(packet, Datagram):
        number, offset = _UDP_NUMBER, 6
        length = _UDP.size + len(packet.payload)
        start = _pseudo(packet, number, length)
        body = _UDP.pack(packet.source_port, packet.port, length, start)
    else:
        number, offset = (_ICMP_NUMBER if version == 4 else _ICMP6_NUMBER), 2
        length = _ECHO.size + len(packet.payload)
        start = _pseudo(packet, number, length) if version == 6 else 0
        body = _ECHO.pack(ECHO_REPLY[version], 0, start, packet.ident, packet.sequence)
    if version == 4:
        header = _header4(packet, number, length, ident)
    else:
        header = _IP6.pack(6 << 28, length, number, _HOPS, packet.source, packet.destination)
    vnet = VNET_HEADER.pack(_NEEDS_CSUM, 0, 0, 0, len(header), offset)
    return [vnet + header + body, packet.payload]


def longest_payload(version: int) -> int:
    """Return the most bytes of UDP payload that one IP packet holds."""
    return 65535 - (_IP4.size if version == 4 else 0) - _UDP.size


def echo_request(version: int, sequence: int, payload: bytes) -> bytes:
    """Return what a ping socket sends; the kernel puts in the identifier and the checksum."""
    return _ECHO.pack(ECHO_REQUEST[version], 0, 0, 0, sequence) + payload


def echo_reply(version: int, data: bytes) -> tuple[int, bytes] | None:
    """Return sequence and payload of what a ping socket received; None if it is not an echo reply."""
    if len(data) < _ECHO.size:
        return None
    kind, code, _, _, sequence = _ECHO.unpack_from(data)
    return (sequence, data[_ECHO.size :]) if (kind, code) == (ECHO_REPLY[version], 0) else None


def _header4(packet: Datagram | Echo, number: int, length: int, ident: int) -> bytes:
    fields = (0x45, 0, _IP4.size + length, ident & 0xFFFF, 0, _HOPS, number)
    bare = _IP4.pack(*fields, 0, packet.source, packet.destination)
    return _IP4.pack(*fields, ~_sum(bare) & 0xFFFF, packet.source, packet.destination)


def _pseudo(packet: Datagram | Echo, number: int, length: int) -> int:
    """Return the sum that a checksum starts from: addresses, protocol and length."""
    return _sum(packet.source + packet.destination + struct.pack(">II", length, number))


def _sum(data: bytes) -> int:
    """Return the one's complement sum of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total

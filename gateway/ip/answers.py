"""Write IP packets for guests: datagrams, echo replies, ICMP errors and resets, IPv4 and IPv6.

Values in, bytes out. Each packet begins with a ``virtio_net_hdr`` for the TUN device. The kernel completes
the checksum of a datagram where it can: the header says where it belongs (``csum_start``, ``csum_offset``),
and the field holds the pseudo header's sum. The kernel fragments an IPv4 packet that is longer than the LAN's
MTU. Only the source may fragment IPv6, so this module does, and then computes the checksum, too.
"""

import struct

from gateway.ip.packets import (
    ECHO,
    ECHO_REPLY,
    ECHO_REQUEST,
    ICMP6_NUMBER,
    ICMP_NUMBER,
    IP4,
    IP6,
    TCP,
    TCP_NUMBER,
    UDP,
    UDP_NUMBER,
    DamagedError,
    Datagram,
    Echo,
    Packet,
    Syn,
    pseudo,
    remainder,
)

VNET_HEADER = struct.Struct("=BBHHHH")
LONGEST = 65535 + VNET_HEADER.size

_NEEDS_CSUM = 1
_NO_OFFLOAD = bytes(VNET_HEADER.size)
_HOPS = 64
_FRAGMENT = struct.Struct(">BBHI")
_FRAGMENT_NUMBER = 44
_RESET_ACK = 0x14

QUOTED = {4: 548, 6: 1232}
"""How many bytes of a packet an ICMP error quotes at most: RFC 1812 4.3.2.3 (a packet of 576), RFC 4443 2.4
(1280)."""

Written = list[bytes | memoryview]
"""The buffers of one packet."""


def answer(packet: Datagram | Echo, ident: int, mtu: int) -> list[Written]:
    """Return the packets for a datagram or an echo *reply*.

    ``ident`` tells the fragments of this packet from another's; ``mtu`` is that of the LAN.
    """
    version = 4 if len(packet.source) == 4 else 6
    size = UDP.size + len(packet.payload)
    if isinstance(packet, Datagram):
        number, offset = UDP_NUMBER, 6
        start = remainder(b"", pseudo(packet, number, size))
        head = UDP.pack(packet.source_port, packet.port, size, start)
    else:
        number, offset = (ICMP_NUMBER if version == 4 else ICMP6_NUMBER), 2
        start = remainder(b"", pseudo(packet, number, size)) if version == 6 else 0
        head = ECHO.pack(ECHO_REPLY[version], 0, start, packet.ident, packet.sequence)
    if version == 6 and IP6.size + size > mtu:
        checksum = _finished(remainder(head + bytes(packet.payload)))
        body = memoryview(head[:offset] + checksum + head[offset + 2 :] + bytes(packet.payload))
        return _cut(packet, number, body, ident, mtu)
    header = _header(packet.source, packet.destination, number, size, ident)
    vnet = VNET_HEADER.pack(_NEEDS_CSUM, 0, 0, 0, len(header), offset)
    return [[vnet + header + head, packet.payload]]


def again(packet: Packet) -> Written:
    """Return a reassembled packet, whole. Raises DamagedError if it is longer than IP allows."""
    if packet.version == 4 and len(packet.body) > 65535 - IP4.size:
        raise DamagedError
    return [
        _NO_OFFLOAD + _header(packet.source, packet.destination, packet.number, len(packet.body)),
        packet.body,
    ]


def refusal(
    source: bytes, guest: bytes, kind_and_code: tuple[int, int], info: int, packet: bytes | memoryview
) -> Written:
    """Return an ICMP error about ``packet``, which the guest had sent; ``info`` as its kind has it."""
    version = 4 if len(source) == 4 else 6
    body = struct.pack(">BBHI", *kind_and_code, 0, info) + bytes(packet[: QUOTED[version]])
    number = ICMP_NUMBER if version == 4 else ICMP6_NUMBER
    start = b"" if version == 4 else pseudo(Datagram(source, guest, 0, 0, b""), number, len(body))
    body = body[:2] + _finished(remainder(body, start)) + body[4:]
    return [_NO_OFFLOAD + _header(source, guest, number, len(body)) + body]


def reset(syn: Syn) -> Written:
    """Return the reset with which a host answers a SYN to a closed port (RFC 9293 3.10.7.1)."""
    back = Datagram(syn.destination, syn.source, syn.port, syn.source_port, b"")
    words = (syn.port, syn.source_port, 0, (syn.sequence + 1) & 0xFFFFFFFF, 0x50, _RESET_ACK, 0)
    bare = TCP.pack(*words, 0, 0)
    checksum = _finished(remainder(bare, pseudo(back, TCP_NUMBER, len(bare))))
    header = _header(back.source, back.destination, TCP_NUMBER, len(bare))
    return [_NO_OFFLOAD + header + bare[:16] + checksum + bare[18:]]


def quoted(packet: Datagram | Echo) -> bytes:
    """Return the guest's packet, as far as it is known, for an error to quote."""
    version = 4 if len(packet.source) == 4 else 6
    size = UDP.size + len(packet.payload)
    if isinstance(packet, Datagram):
        number, head = UDP_NUMBER, UDP.pack(packet.source_port, packet.port, size, 0)
    else:
        number = ICMP_NUMBER if version == 4 else ICMP6_NUMBER
        head = ECHO.pack(ECHO_REQUEST[version], 0, 0, packet.ident, packet.sequence)
    return _header(packet.source, packet.destination, number, size) + head + bytes(packet.payload)


def fits(packet: Datagram | Echo) -> bool:
    """Whether the datagram fits one IP packet."""
    return UDP.size + len(packet.payload) <= 65535 - (IP4.size if len(packet.source) == 4 else 0)


def echo_request(version: int, sequence: int, payload: bytes | memoryview) -> bytes:
    """Return an echo request for a ping socket; the kernel fills in the identifier and the checksum."""
    return ECHO.pack(ECHO_REQUEST[version], 0, 0, 0, sequence) + payload


def echo_reply(version: int, data: bytes) -> tuple[int, bytes] | None:
    """Return sequence and payload of a ping socket's message; None if it is not an echo reply."""
    if len(data) < ECHO.size:
        return None
    kind, code, _, _, sequence = ECHO.unpack_from(data)
    return (sequence, data[ECHO.size :]) if (kind, code) == (ECHO_REPLY[version], 0) else None


def _cut(packet: Datagram | Echo, number: int, body: memoryview, ident: int, mtu: int) -> list[Written]:
    """Return the fragments of an IPv6 packet (RFC 8200 4.5)."""
    room = (mtu - IP6.size - _FRAGMENT.size) // 8 * 8
    cut: list[Written] = []
    for begin in range(0, len(body), room):
        piece = body[begin : begin + room]
        place = begin | (begin + room < len(body))
        inner = _FRAGMENT.pack(number, 0, place, ident & 0xFFFFFFFF)
        size = len(inner) + len(piece)
        header = _header(packet.source, packet.destination, _FRAGMENT_NUMBER, size)
        cut.append([_NO_OFFLOAD + header + inner, piece])
    return cut


def _finished(total: int) -> bytes:
    """Return the checksum for a sum; never zero, which would mean that there is no checksum (RFC 768)."""
    return struct.pack(">H", ~total & 0xFFFF or 0xFFFF)


def _header(source: bytes, destination: bytes, number: int, size: int, ident: int = 0) -> bytes:
    if len(source) == 16:
        return IP6.pack(6 << 28, size, number, _HOPS, source, destination)
    fields = (0x45, 0, IP4.size + size, ident & 0xFFFF, 0, _HOPS, number)
    total = remainder(IP4.pack(*fields, 0, source, destination))
    return IP4.pack(*fields, ~total & 0xFFFF, source, destination)

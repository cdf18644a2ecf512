"""What a TAP's kernel leaves to be done, and what has to come of it, built from the fields of the headers.

``Flow`` says what is sent. ``unfinished`` is the one large frame behind its ``virtio_net_hdr`` that a kernel
makes of it, ``finished`` are the frames that go over the wire, each put together from nothing and its
checksums by the book (RFC 791, 768, 8200, 9293; sums of 16-bit words): nothing of the core's way of doing it
is here. ``is_right`` looks at a frame of which only the bytes are known.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hypothesis import strategies as st

TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
NEEDS_CSUM = 1
GSO = {(False, TCP): 1, (True, TCP): 4, (False, UDP): 5, (True, UDP): 5}
ECN = 0x80
ROUTING = 43
HEADER = 10

WORDS = st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
"""Options of IPv4 or TCP, in whole words."""
EXTENSIONS = st.sampled_from(
    [
        b"",
        bytes((0, TCP, 0)) + bytes(6),  # hop-by-hop options
        bytes((60, ROUTING, 1)) + bytes(14) + bytes((TCP, 0)) + bytes(6),  # destination options, routing
    ]
)
"""Extension headers of IPv6 in front of TCP."""


def sum16(data: bytes) -> int:
    """One's complement sum of big-endian words."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    """What makes the sum right, with zero as its other form."""
    return 0xFFFF - sum16(data) or 0xFFFF


def vnet(
    flags: int = 0, kind: int = 0, headers: int = 0, segment: int = 0, start: int = 0, offset: int = 0
) -> bytes:
    """A ``virtio_net_hdr``."""
    return struct.pack("<BBHHHH", flags, kind, headers, segment, start, offset)


class Flow(NamedTuple):
    """A stretch of one flow, to be sent at once."""

    payload: bytes
    mss: int
    ipv6: bool = False
    protocol: int = TCP
    tags: tuple[int, ...] = ()
    extra: bytes = b""
    """Options of IPv4, or extension headers of IPv6 behind the number of the first."""
    options: bytes = b""
    """Of TCP."""
    flags: int = ACK | PSH
    sequence: int = 1
    ident: int = 0
    destination: bytes = b"\x02\0\0\0\0\x02"
    source: bytes = b"\x02\0\0\0\0\x01"

    @property
    def link(self) -> bytes:
        """The Ethernet header with its tags; of two, the outer one is a service's (IEEE 802.1ad)."""
        kinds = (0x88A8, 0x8100)[-len(self.tags) :] if self.tags else ()
        tags = b"".join(struct.pack(">HH", kind, tag) for kind, tag in zip(kinds, self.tags, strict=True))
        return self.destination + self.source + tags + struct.pack(">H", 0x86DD if self.ipv6 else 0x0800)

    @property
    def addresses(self) -> bytes:
        """Of the IP header."""
        return bytes(range(1, 33)) if self.ipv6 else bytes((10, 9, 8, 7, 10, 6, 5, 4))

    def ip(self, number: int, carried: int) -> bytes:
        """The IP header of frame ``number``, in front of ``carried`` bytes."""
        if self.ipv6:
            first, extensions = (self.extra[0], self.extra[1:]) if self.extra else (self.protocol, b"")
            fixed = struct.pack(">IHBB", 6 << 28 | 0x12345, len(extensions) + carried, first, 64)
            return fixed + self.addresses + extensions
        words, total = 5 + len(self.extra) // 4, 20 + len(self.extra) + carried
        ident = (self.ident + number) & 0xFFFF
        head = struct.pack(">BBHHHBB", 4 << 4 | words, 0, total, ident, 0x4000, 64, self.protocol)
        check = 0xFFFF - sum16(head + self.addresses + self.extra)
        return head + struct.pack(">H", check) + self.addresses + self.extra

    def pseudo(self, carried: int) -> bytes:
        """What a transport's checksum covers besides."""
        return self.addresses + struct.pack(">II", carried, self.protocol)

    def transport(self, offset: int, carried: int, flags: int, check: int = 0) -> bytes:
        """The TCP or UDP header in front of ``carried`` bytes that begin at ``offset`` of the payload."""
        if self.protocol == UDP:
            return struct.pack(">HHHH", 5000, 53, 8 + carried, check)
        sequence, words = (self.sequence + offset) & 0xFFFF_FFFF, 5 + len(self.options) // 4
        ports = struct.pack(">HHIIBBHHH", 5000, 80, sequence, 77, words << 4, flags, 512, check, 0)
        return ports + self.options

    def unfinished(self) -> bytes:
        """The frame as the kernel hands it over, with the pseudo header summed up and nothing else."""
        bare = self.transport(0, len(self.payload), self.flags)
        carried = len(bare) + len(self.payload)
        begun = self.transport(0, len(self.payload), self.flags, sum16(self.pseudo(carried)))
        front = self.link + self.ip(0, carried)
        kind = GSO[self.ipv6, self.protocol] | (ECN if self.protocol == TCP and self.flags & CWR else 0)
        header = vnet(
            NEEDS_CSUM, kind, len(front) + len(begun), self.mss, len(front), 16 if self.protocol == TCP else 6
        )
        return header + front + begun + self.payload

    def finished(self) -> list[bytes]:
        """The frames for the wire."""
        return [
            self._frame(number, offset) for number, offset in enumerate(range(0, len(self.payload), self.mss))
        ]

    def _frame(self, number: int, offset: int) -> bytes:
        part = self.payload[offset : offset + self.mss]
        flags = self.flags if number == 0 else self.flags & ~CWR
        if offset + len(part) < len(self.payload):
            flags &= ~(FIN | PSH)
        bare = self.transport(offset, len(part), flags)
        carried = len(bare) + len(part)
        check = checksum(self.pseudo(carried) + bare + part)
        return self.link + self.ip(number, carried) + self.transport(offset, len(part), flags, check) + part


def is_right(frame: bytes) -> bool:
    """Whether every length and every checksum of a frame with TCP or UDP in it is what it has to be."""
    at = 12
    while frame[at : at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    kind, at = frame[at : at + 2], at + 2
    if kind == b"\x08\0":
        header = (frame[at] & 15) * 4
        (length,) = struct.unpack_from(">H", frame, at + 2)
        sound = sum16(frame[at : at + header]) == 0xFFFF
        addresses, protocol, transport = frame[at + 12 : at + 20], frame[at + 9], at + header
    else:
        (length,) = struct.unpack_from(">H", frame, at + 4)
        length += 40
        sound = kind == b"\x86\xdd"
        addresses, protocol, transport = frame[at + 8 : at + 40], frame[at + 6], at + 40
    body = frame[transport : at + length]
    pseudo = addresses + struct.pack(">II", len(body), protocol)
    return sound and at + length == len(frame) and sum16(pseudo + body) == 0xFFFF

"""DHCPv4 messages as bytes: RFC 2131, options RFC 2132, long options RFC 3396, search lists RFC 3397.

This module only reads and writes; ``server`` decides. A malformed message is read as None and gets no answer.
Options with the same number are joined (RFC 3396). Options may go on in the fields for names (option 52); few
clients do that.
"""

import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

SERVER_PORT, CLIENT_PORT = 67, 68

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
"""Kinds of message: option 53."""

MASK, ROUTER, DNS, HOST_NAME, DOMAIN, MTU, BROADCAST = 1, 3, 6, 12, 15, 26, 28
WANTED, LEASE_TIME, OVERLOAD, KIND, SERVER, LONGEST, T1, T2, CLIENT = 50, 51, 52, 53, 54, 57, 58, 59, 61
RAPID_COMMIT, FULL_NAME, SEARCH = 80, 81, 119

LEAST_BYTES = 300
"""The shortest reply, from BOOTP: some clients still drop shorter ones."""

SHORTEST_LIMIT = 576
"""Every client accepts an IP packet of this size (RFC 2131 2)."""

_HEAD = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s")
_COOKIE = b"\x63\x82\x53\x63"
_BROADCAST = 0x8000
_PAD, _END = 0, 255
_REQUEST_OP, _REPLY_OP = 1, 2
_ETHERNET = (1, 6)
_ANYWHERE = IPv4Address(0)
_MOST_OPTION = 255


class Message(NamedTuple):
    """What a guest says."""

    kind: int
    xid: int
    wants_broadcast: bool
    own: IPv4Address
    """The address that the guest already uses (ciaddr); 0.0.0.0: none."""
    relayed: bool
    mac: bytes
    options: Mapping[int, bytes]

    def address(self, option: int) -> IPv4Address | None:
        """Return the address in an option."""
        value = self.options.get(option, b"")
        return IPv4Address(value) if len(value) == 4 else None

    @property
    def name(self) -> str:
        """The guest's host name: option 12, or the full name of option 81; "" if there is none."""
        if HOST_NAME in self.options:
            return self.options[HOST_NAME].rstrip(b"\0").decode("ascii", "replace")
        full = self.options.get(FULL_NAME, b"")
        if len(full) > 3 and full[0] & 4:  # in the form of DNS (RFC 4702 2.3.1): the first label is the host
            return full[4 : 4 + full[3]].decode("ascii", "replace")
        return full[3:].rstrip(b"\0").decode("ascii", "replace")

    @property
    def room(self) -> int:
        """How many bytes of UDP payload the client accepts."""
        said = int.from_bytes(self.options.get(LONGEST, b"")[:2], "big")
        return max(said, SHORTEST_LIMIT) - 28


def parse(data: bytes) -> Message | None:
    """Read a request."""
    if len(data) < _HEAD.size + len(_COOKIE) or data[_HEAD.size : _HEAD.size + 4] != _COOKIE:
        return None
    op, kind, length, _, xid, _, flags, own, _, _, relay, hardware, sname, file = _HEAD.unpack_from(data)
    if op != _REQUEST_OP or (kind, length) != _ETHERNET:
        return None
    options: dict[int, bytes] = {}
    if not _read(data[_HEAD.size + 4 :], options):
        return None
    overload = options.get(OVERLOAD, b"\0")
    for bit, field in ((1, file), (2, sname)):
        if overload[:1] and overload[0] & bit and not _read(field, options):
            return None
    said = options.get(KIND, b"")
    if len(said) != 1 or not DISCOVER <= said[0] <= INFORM:
        return None
    relayed = relay != bytes(4)
    return Message(said[0], xid, bool(flags & _BROADCAST), IPv4Address(own), relayed, hardware[:6], options)


def _read(data: bytes, into: dict[int, bytes]) -> bool:
    """Add the options in ``data``; False if one is cut short."""
    at = 0
    while at < len(data) and data[at] != _END:
        code = data[at]
        at += 1
        if code == _PAD:
            continue
        if at >= len(data) or at + 1 + data[at] > len(data):
            return False
        into[code] = into.get(code, b"") + data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    return True


def reply(
    to: Message,
    kind: int,
    server: IPv4Address,
    yours: IPv4Address,
    options: Iterable[tuple[int, bytes]],
    *,
    most: int,
) -> bytes:
    """Return an answer of at most ``most`` bytes, with the client's identifier if it has one (RFC 6842).

    An option that does not fit that, or the client's limit, is left out; earlier ones come first.
    """
    room = min(to.room, most)
    flags = _BROADCAST if to.wants_broadcast else 0
    own = to.own if kind == ACK else _ANYWHERE
    head = _HEAD.pack(
        *(_REPLY_OP, *_ETHERNET, 0, to.xid, 0, flags),
        *(own.packed, yours.packed, bytes(4), bytes(4), to.mac, b"", b""),
    )
    data = head + _COOKIE + _option(KIND, bytes((kind,))) + _option(SERVER, server.packed)
    identifier = to.options.get(CLIENT, b"")[:_MOST_OPTION]
    for code, value in (*([(CLIENT, identifier)] if identifier else []), *options):
        more = _option(code, value)
        if len(data) + len(more) + 1 <= room:
            data += more
    return (data + bytes((_END,))).ljust(LEAST_BYTES, b"\0")


def _option(code: int, value: bytes) -> bytes:
    parts = [value[at : at + _MOST_OPTION] for at in range(0, max(1, len(value)), _MOST_OPTION)]
    return b"".join(bytes((code, len(part))) + part for part in parts)


def search_list(names: Iterable[str]) -> bytes:
    """Return names in the form of option 119, without the compression that it allows."""
    return b"".join(
        b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0" for name in names
    )

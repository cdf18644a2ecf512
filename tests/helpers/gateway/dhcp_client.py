"""DHCP messages of guests, written by hand, and the answers read: the other side of ``gateway.leases``."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
ASKED, SERVER, NAME, CLIENT, RAPID = 50, 54, 12, 61, 80
COOKIE = b"\x63\x82\x53\x63"


class Reply(NamedTuple):
    """What a server said."""

    kind: int
    address: str
    options: Mapping[int, bytes]


def request(
    kind: int,
    mac: bytes,
    options: Mapping[int, bytes] | None = None,
    *,
    own: str = "0.0.0.0",
    broadcast: bool = True,
    xid: int = 7,
    relay: str = "0.0.0.0",
) -> bytes:
    """Return a guest's message."""
    head = struct.pack(
        ">BBBBIHH4s4s4s4s16s192x",
        *(1, 1, 6, 0, xid, 0, 0x8000 if broadcast else 0, socket.inet_aton(own)),
        *(bytes(4), bytes(4), socket.inet_aton(relay), mac),
    )
    said = {53: bytes((kind,))} | dict(options or {})
    body = b"".join(bytes((code, len(value))) + value for code, value in said.items())
    return (head + COOKIE + body + b"\xff").ljust(300, b"\0")


def read(data: bytes) -> Reply:
    """Read a server's message."""
    options: dict[int, bytes] = {}
    at = 240
    while data[at] != 255:
        if data[at]:
            value = data[at + 2 : at + 2 + data[at + 1]]
            options[data[at]] = options.get(data[at], b"") + value
            at += 1 + data[at + 1]
        at += 1
    return Reply(options[53][0], socket.inet_ntoa(data[16:20]), options)

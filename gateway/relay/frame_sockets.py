"""Packet sockets that see what guests send to the outside: made in the namespace, read by the relay.

A frame's Ethernet source is what the switch knows a guest by (``gateway.ports``), and IP's layers do not tell
it. So what guests send out is not routed to the relay but seen where it comes in, by packet sockets of the
LAN's interface (packet(7)). A filter in the kernel (``program``) lets them see only what the relay is to
handle:

- packets of the LAN to the outside or to the host alias, of which TCP only the SYNs;
- packets whose source is not of the LAN at all, so that somebody counts them.

The packet filter (``inside.nft``) drops the same packets in the kernel's own stack. There are ``SOCKETS`` of
them, and a guest's address decides which one takes its frames (a fan-out by a second program): a guest that
floods fills the queue of one, and the others are read all the same.
"""

import ctypes
import os
import socket
import struct
from typing import NamedTuple

from gateway.relay.policy import OutboundPolicy

SOCKETS = 8

_SOL_PACKET = 263
_PACKET_VNET_HDR, _PACKET_FANOUT, _PACKET_FANOUT_DATA, _PACKET_IGNORE_OUTGOING = 15, 18, 22, 23
_FANOUT_CBPF = 6
_ETH_P_ALL, _IP4, _IP6 = 0x0003, 0x0800, 0x86DD
_SO_ATTACH_FILTER = 26

# Classic BPF (linux/filter.h). The packet type and the link header are ancillary data.
_LD_W, _LD_H, _LD_B, _LDX_HEADER, _LD_FROM_X = 0x20, 0x28, 0x30, 0xB1, 0x50
_AND, _RSH, _XOR_X, _TAX, _RET, _RET_A = 0x54, 0x74, 0xAC, 0x07, 0x06, 0x16
_JEQ, _JUMP = 0x15, 0x05
_PACKET_TYPE = 0xFFFFF000 + 4
_LINK = 0xFFE00000
_TO_US = 0

_ETHERNET = 14
_SYN_ACK, _SYN = 0x12, 0x02
_TCP = 6


class _Op(NamedTuple):
    """An instruction; ``true`` and ``false`` are names of lines, or nothing for the next line."""

    code: int
    value: int = 0
    true: str = ""
    false: str = ""


_Line = _Op | str
"""An instruction, or the name of the next one."""


def open_all(interface: str, policy: OutboundPolicy) -> list[socket.socket]:
    """Return the sockets, made in the caller's network namespace. Raises OSError."""
    made: list[socket.socket] = []
    seen, shared = assemble(program(policy)), assemble(_BY_SOURCE)
    group = os.getpid() & 0xFFFF
    try:
        for _ in range(SOCKETS):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.append(sock)
            sock.setblocking(False)
            _attach(sock, socket.SOL_SOCKET, _SO_ATTACH_FILTER, seen)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            sock.bind((interface, _ETH_P_ALL))
            sock.setsockopt(_SOL_PACKET, _PACKET_FANOUT, struct.pack("=HH", group, _FANOUT_CBPF))
        _attach(made[0], _SOL_PACKET, _PACKET_FANOUT_DATA, shared)
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


def program(policy: OutboundPolicy) -> list[_Line]:
    """Return the filter: which frames the relay sees."""
    net, mask = int(policy.subnet.network_address), int(policy.subnet.netmask)
    prefix = struct.unpack(">2I", policy.prefix.network_address.packed[:8])
    alias = struct.unpack(">4I", policy.host6.packed)
    return [
        _Op(_LD_W, _PACKET_TYPE),
        _Op(_JEQ, _TO_US, "", "no"),
        _Op(_LD_H, 12),
        _Op(_JEQ, _IP4, "four"),
        _Op(_JEQ, _IP6, "six", "no"),
        "four",
        _Op(_LD_W, 26),
        _Op(_JEQ, 0, "no"),  # has no address yet
        _Op(_AND, mask),
        _Op(_JEQ, net, "", "yes"),
        _Op(_LD_W, 30),
        _Op(_JEQ, int(policy.host4), "out4"),
        _Op(_AND, mask),
        _Op(_JEQ, net, "no"),
        "out4",
        _Op(_LD_B, 23),
        _Op(_JEQ, _TCP, "", "yes"),
        _Op(_LDX_HEADER, _ETHERNET),
        _Op(_LD_FROM_X, _ETHERNET + 13),
        _Op(_JUMP, 0, "flags"),
        "six",
        _Op(_LD_H, 22),
        _Op(_JEQ, 0, "no"),  # has no address yet
        _Op(_AND, 0xFFC0),
        _Op(_JEQ, 0xFE80, "no"),  # means neighbours only
        _Op(_LD_W, 22),
        _Op(_JEQ, prefix[0], "", "yes"),
        _Op(_LD_W, 26),
        _Op(_JEQ, prefix[1], "", "yes"),
        _Op(_LD_H, 38),
        _Op(_AND, 0xFFC0),
        _Op(_JEQ, 0xFE80, "no"),
        _Op(_LD_W, 38),
        _Op(_JEQ, prefix[0], "", "out6"),
        _Op(_LD_W, 42),
        _Op(_JEQ, prefix[1], "", "out6"),
        _Op(_LD_W, 46),
        _Op(_JEQ, alias[2], "", "no"),
        _Op(_LD_W, 50),
        _Op(_JEQ, alias[3], "", "no"),
        "out6",
        _Op(_LD_B, 20),
        _Op(_JEQ, _TCP, "", "yes"),
        _Op(_LD_B, _ETHERNET + 40 + 13),
        "flags",
        _Op(_AND, _SYN_ACK),
        _Op(_JEQ, _SYN, "yes", "no"),
        "yes",
        _Op(_RET, 0xFFFF_FFFF),
        "no",
        _Op(_RET, 0),
    ]


_BY_SOURCE: list[_Line] = [
    # The last four bytes of the Ethernet source, mixed; the kernel takes the remainder by the number of
    # sockets.
    _Op(_LD_W, _LINK + 8),
    _Op(_TAX),
    _Op(_RSH, 8),
    _Op(_XOR_X),
    _Op(_TAX),
    _Op(_RSH, 16),
    _Op(_XOR_X),
    _Op(_RET_A),
]


def assemble(lines: list[_Line]) -> bytes:
    """Return the bytes of a program (``struct sock_filter``)."""
    places: dict[str, int] = {}
    ops: list[_Op] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(ops)
        else:
            ops.append(line)
    packed = []
    for place, (code, value, true, false) in enumerate(ops):
        after = [places[name] - place - 1 if name else 0 for name in (true, false)]
        if code == _JUMP:
            packed.append(struct.pack("=HBBI", code, 0, 0, after[0]))
        else:
            packed.append(struct.pack("=HBBI", code, *after, value))
    return b"".join(packed)


def _attach(sock: socket.socket, level: int, option: int, code: bytes) -> None:
    """Give a program to the kernel (``struct sock_fprog``)."""
    held = ctypes.create_string_buffer(code)
    sock.setsockopt(level, option, struct.pack("@HP", len(code) // 8, ctypes.addressof(held)))

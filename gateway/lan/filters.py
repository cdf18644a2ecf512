"""What the gateway's packet sockets hear: classic BPF programs (kernel: Documentation/networking/filter.rst).

The kernel runs a program on each IP frame that comes in through ``lan0``, and gives the socket those that it
takes: questions for a lease or a name, the first segment of a TCP connection to port 53, and router
solicitations. All others cost some ten instructions and no copy.

A program is a list of (code, jump if true, jump if false, value); jumps count the instructions in between.
``_program`` puts them in from labels, so that nobody counts.
"""

import socket
import struct
from array import array
from collections.abc import Sequence

from gateway.lan.frames import ICMPV6, SOLICITATION, TCP, UDP

SO_ATTACH_FILTER = 26
DNS_PORT, DHCP_PORT = 53, 67

_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD = 0x30, 0x28, 0x20
_LOAD_BYTE_X, _LOAD_HALF_X = 0x50, 0x48
_HEADER_LENGTH = 0xB1
"""X = 4 * (low half of a byte): the length of an IPv4 header."""
_EQUAL, _SET, _JUMP, _RETURN = 0x15, 0x45, 0x05, 0x06
_WHOLE = 0xFFFF
_SYN = 0x02
_FRAGMENT = 0x3FFF

Step = tuple[int, int, str, str] | str
"""Code, value, and the labels to go to if true and if not ("": the next one); or a label."""


def ipv4(gateway: bytes) -> list[Step]:
    """Return what takes DHCP, and UDP and the first segments of TCP to port 53 of ``gateway``."""
    return [
        (_LOAD_HALF, 20, "", ""),
        (_SET, _FRAGMENT, "drop", ""),
        (_HEADER_LENGTH, 14, "", ""),
        (_LOAD_HALF_X, 16, "", ""),
        (_EQUAL, DHCP_PORT, "dhcp", ""),
        (_EQUAL, DNS_PORT, "", "drop"),
        (_LOAD_WORD, 30, "", ""),
        (_EQUAL, int.from_bytes(gateway, "big"), "", "drop"),
        (_LOAD_BYTE, 23, "", ""),
        (_EQUAL, UDP, "take", ""),
        (_EQUAL, TCP, "", "drop"),
        (_LOAD_BYTE_X, 14 + 13, "", ""),
        (_SET, _SYN, "take", "drop"),
        "dhcp",
        (_LOAD_BYTE, 23, "", ""),
        (_EQUAL, UDP, "take", "drop"),
        *_ENDS,
    ]


def ipv6(gateway: bytes) -> list[Step]:
    """Return what takes router solicitations, and UDP and first segments of TCP to port 53 of ``gateway``."""
    return [
        (_LOAD_BYTE, 20, "", ""),
        (_EQUAL, ICMPV6, "icmp", ""),
        (_EQUAL, UDP, "port", ""),
        (_EQUAL, TCP, "", "drop"),
        (_LOAD_BYTE, 54 + 13, "", ""),
        (_SET, _SYN, "port", "drop"),
        "icmp",
        (_LOAD_BYTE, 54, "", ""),
        (_EQUAL, SOLICITATION, "take", "drop"),
        "port",
        (_LOAD_HALF, 56, "", ""),
        (_EQUAL, DNS_PORT, "", "drop"),
        *_is_at(38, gateway),
        (_JUMP, 0, "take", ""),
        *_ENDS,
    ]


_ENDS: list[Step] = ["take", (_RETURN, _WHOLE, "", ""), "drop", (_RETURN, 0, "", "")]


def _is_at(offset: int, address: bytes) -> list[Step]:
    """Return what drops frames that do not have ``address`` there."""
    steps: list[Step] = []
    for at in range(0, len(address), 4):
        steps.append((_LOAD_WORD, offset + at, "", ""))
        steps.append((_EQUAL, int.from_bytes(address[at : at + 4], "big"), "", "drop"))
    return steps


def _program(steps: Sequence[Step]) -> bytes:
    """Return the program as the kernel reads it: an array of ``struct sock_filter``."""
    places: dict[str, int] = {}
    code: list[tuple[int, int, str, str]] = []
    for step in steps:
        if isinstance(step, str):
            places[step] = len(code)
        else:
            code.append(step)
    packed = []
    for number, (operation, value, yes, no) in enumerate(code):
        ways = [places[label] - number - 1 if label else 0 for label in (yes, no)]
        fields = (0, 0, ways[0]) if operation == _JUMP else (*ways, value)
        packed.append(struct.pack("=HBBI", operation, *fields))
    return b"".join(packed)


def attach(sock: socket.socket, steps: Sequence[Step]) -> None:
    """Let ``sock`` hear only what the program takes. Raises OSError."""
    program = array("B", _program(steps))
    described = struct.pack("HP", len(program) // 8, program.buffer_info()[0])
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)

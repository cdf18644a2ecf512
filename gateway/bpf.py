"""Classic BPF for packet sockets (kernel: Documentation/networking/filter.rst), with labels for jumps.

The kernel runs a program on each frame. It copies a frame to the socket only if the program accepts it; a
rejected frame costs about ten instructions. A program is a list of steps. A step is a label, or an operation
with its value and the labels to jump to. Offsets count from the Ethernet header; a program that does not see
this header finds it at LINK.
"""

import socket
import struct
from array import array
from collections.abc import Sequence

LOAD_BYTE, LOAD_HALF, LOAD_WORD = 0x30, 0x28, 0x20
LOAD_BYTE_X, LOAD_HALF_X = 0x50, 0x48
HEADER_LENGTH = 0xB1
"""X = 4 * (low half of a byte): the length of an IPv4 header."""
AND, SHIFT_RIGHT, XOR_X, COPY_TO_X = 0x54, 0x74, 0xAC, 0x07
EQUAL, SET, JUMP, RETURN, RETURN_A = 0x15, 0x45, 0x05, 0x06, 0x16

LINK = 0xFFE00000
PACKET_TYPE = 0xFFFFF000 + 4
TO_US, TO_OTHERS = 0, 3
"""PACKET_TYPE of a frame to the interface's own address, and to another address or VLAN."""
VLAN_TAG = 0xFFFFF000 + 44
"""The tag that the kernel has taken off; 0: none."""

WHOLE = 0x40000  # more than the longest frame
SO_ATTACH_FILTER = 26

Step = tuple[int, int, str, str] | str
"""A label; or an operation: code, value, label to jump to if true, label if false ("": the next step)."""

ENDS: list[Step] = ["take", (RETURN, WHOLE, "", ""), "drop", (RETURN, 0, "", "")]
"""The last steps of a program that jumps to these labels."""


def assemble(steps: Sequence[Step]) -> bytes:
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
        fields = (0, 0, ways[0]) if operation == JUMP else (*ways, value)
        packed.append(struct.pack("=HBBI", operation, *fields))
    return b"".join(packed)


def attach(
    sock: socket.socket,
    steps: Sequence[Step],
    level: int = socket.SOL_SOCKET,
    option: int = SO_ATTACH_FILTER,
) -> None:
    """Attach a program to a socket; the kernel filters with it at once. Raises OSError."""
    program = array("B", assemble(steps))
    sock.setsockopt(level, option, struct.pack("HP", len(program) // 8, program.buffer_info()[0]))

"""Classic BPF for packet sockets (kernel: Documentation/networking/filter.rst), with labels for jumps.

The kernel runs a program on each frame and gives the socket those that it takes; a frame that it does not
take costs some ten instructions and no copy. A program is a list of steps: an operation with its value and
the labels to go to, or a label. Offsets are from the Ethernet header, whose address is LINK where a program
does not see it otherwise.
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
TO_US = 0
"""PACKET_TYPE of a frame that is for the interface's own address."""

WHOLE = 0x40000  # more than the longest frame
SO_ATTACH_FILTER = 26

Step = tuple[int, int, str, str] | str
"""Code, value, and the labels to go to if true and if not ("": the next one); or a label."""

ENDS: list[Step] = ["take", (RETURN, WHOLE, "", ""), "drop", (RETURN, 0, "", "")]
"""What a program ends with that goes to these labels."""


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
    """Give a program to the kernel, which goes by it from then on. Raises OSError."""
    program = array("B", assemble(steps))
    sock.setsockopt(level, option, struct.pack("HP", len(program) // 8, program.buffer_info()[0]))

"""Write the pcapng format: one section, an interface for each port, a packet for each captured frame.

Sans-I/O: every function returns bytes to write. The source is draft-ietf-opsawg-pcapng. Numbers are
little-endian. An interface is a port of the switch. A packet has its direction in the flags of its block, and
the reason of a drop in a comment. ``tshark`` and ``capinfos`` read the result.

Example: two ports and one dropped frame are ``section("bulkhead 0.1")``, ``interface(0, "qemu-1")``,
``interface(1, "web")``, ``packet(0, time_ns, frame, 1514, flags=IN)``, ``packet(1, time_ns, frame, 1514, OUT,
"dropped: egress_full")``.
"""

import struct
from collections.abc import Iterable

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
BYTE_ORDER = 0x1A2B3C4D
ETHERNET = 1
"""LINKTYPE_ETHERNET."""
LENGTH_UNKNOWN = -1
COMMENT, HARDWARE, APPLICATION = 1, 2, 4
NAME, DESCRIPTION, RESOLUTION = 2, 3, 9
FLAGS, RECEIVED, DROPPED = 2, 4, 5
NANOSECONDS = 9
IN, OUT = 1, 2
"""From the VM into the switch; from the switch to the VM (bits 0 and 1 of a packet's flags)."""

_PACKET, _SIZE = struct.Struct("<IIIIIII"), struct.Struct("<I")
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")

Option = tuple[int, bytes]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _options(options: Iterable[Option]) -> bytes:
    listed = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join([*listed, b"\0\0\0\0"]) if listed else b""


def _flags(flags: int) -> Option:
    return FLAGS, struct.pack("<I", flags)


_FLAGS_ONLY = {flags: _options([_flags(flags)]) for flags in (IN, OUT)}


def _block(kind: int, body: bytes) -> bytes:
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


def section(application: str) -> bytes:
    """Return the head of a file, written by ``application``."""
    head = struct.pack("<IHHq", BYTE_ORDER, 1, 0, LENGTH_UNKNOWN)
    return _block(SECTION, head + _options([(APPLICATION, application.encode())]))


def interface(name: str, description: str, snap: int) -> bytes:
    """Return a port's description; interfaces count from 0. ``snap``: most bytes of a packet."""
    options = [(NAME, name.encode()), (DESCRIPTION, description.encode()), (RESOLUTION, bytes([NANOSECONDS]))]
    return _block(INTERFACE, struct.pack("<HHI", ETHERNET, 0, snap) + _options(options))


def packet(number: int, time_ns: int, data: bytes, length: int, *, flags: int, comment: str = "") -> bytes:
    """Return a frame at interface ``number``.

    ``data`` has the kept bytes of ``length``. The time is since 1970. ``flags``: IN or OUT.
    """
    options = _FLAGS_ONLY[flags] if not comment else _options([(COMMENT, comment.encode()), _flags(flags)])
    kept = len(data)
    padding = -kept % 4
    size = _PACKET.size + kept + padding + len(options) + _SIZE.size
    head = _PACKET.pack(PACKET, size, number, time_ns >> 32, time_ns & 0xFFFFFFFF, kept, length)
    return b"".join((head, data, _PADDING[padding], options, _SIZE.pack(size)))


def statistics(number: int, time_ns: int, received: int, lost: int) -> bytes:
    """Return the statistics of interface ``number``: captured frames, and frames that the reader lost."""
    head = struct.pack("<III", number, time_ns >> 32, time_ns & 0xFFFFFFFF)
    counts = [(RECEIVED, struct.pack("<Q", received)), (DROPPED, struct.pack("<Q", lost))]
    return _block(STATISTICS, head + _options(counts))

"""Write the classic pcap format, like gvproxy: frames with a time, without ports or reasons of drops.

Sans-I/O, with the functions of ``pcapng``. The format has no place for descriptions of ports, for statistics
and for the copy of a frame that tells why it was dropped: these functions return no bytes. A dropped frame is
in the file once, as it came from the VM. The source is draft-ietf-opsawg-pcap; times are in nanoseconds
(magic number 0xA1B23C4D), numbers little-endian.
"""

import struct

from supervisor.capture.pcapng import ETHERNET

MAGIC_NANOSECONDS = 0xA1B23C4D
MOST_BYTES = 1 << 18
SECOND_NS = 1_000_000_000


def section(application: str) -> bytes:
    """Return the head of a file; ``application`` is not written."""
    return struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, MOST_BYTES, ETHERNET)


def interface(name: str, description: str, snap: int) -> bytes:
    """Return nothing."""
    return b""


def packet(number: int, time_ns: int, data: bytes, length: int, *, flags: int, comment: str = "") -> bytes:
    """Return a frame with its kept bytes ``data``; no bytes for the copy of a dropped frame."""
    if comment:
        return b""
    return struct.pack("<IIII", time_ns // SECOND_NS, time_ns % SECOND_NS, len(data), length) + data


def statistics(number: int, time_ns: int, received: int, lost: int) -> bytes:
    """Return nothing."""
    return b""

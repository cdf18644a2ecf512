"""The shared memory of a ring, to be scribbled over as a hostile neighbour would.

The offsets are those of ring_memory.h, flood.h, fdb.h and capture_ring.h in forwarder/_core. A unicast or
flood ring must be opened here before its writer maps it, because from then on the kernel lets no other
process write to it.
"""

from __future__ import annotations

import mmap
import struct
from typing import ClassVar

HEADER_BYTES = 65536
RUN = struct.Struct("=QII6sBx")
RUNS_AT = 128
TAIL_BYTES = 88
FLOOD_RECORD = struct.Struct("=IIII")


FDB_BYTES = 135232
FDB_COUNTS_AT = 16


def set_fdb_count(stats_page: int, port: int, count: int) -> None:
    """Change what the MAC table in a statistics page says of the number of its entries for ``port``."""
    with mmap.mmap(stats_page, 0) as memory:
        at = len(memory) - FDB_BYTES + FDB_COUNTS_AT + 4 * port
        memory[at : at + 4] = struct.pack("=I", count)


class Scribble:
    """Fields by name, and the data behind the header."""

    FIELDS: ClassVar[dict[str, tuple[int, str]]] = {}

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(fd, HEADER_BYTES + size)

    def __getitem__(self, field: str) -> int:
        offset, code = self.FIELDS[field]
        return struct.unpack_from("=" + code, self.memory, offset)[0]

    def __setitem__(self, field: str, value: int) -> None:
        offset, code = self.FIELDS[field]
        mask = (1 << 8 * struct.calcsize("=" + code)) - 1
        struct.pack_into("=" + code, self.memory, offset, value & mask)

    def write(self, at: int, data: bytes) -> None:
        """Write behind the header, round the end."""
        for i, byte in enumerate(data):
            self.memory[HEADER_BYTES + (at + i) % self.size] = byte


class RingScribble(Scribble):
    """Both memories of a ring; a field of the consumer's begins with ``tail``."""

    FIELDS: ClassVar = {"magic": (0, "I"), "layout": (4, "I"), "head": (64, "Q")}
    TAIL_FIELDS: ClassVar = {"tail_magic": (0, "I"), "tail_runs": (64, "Q"), "tail_bytes": (72, "Q")}

    def __init__(self, ring: int, tail: int, size: int) -> None:
        super().__init__(ring, size)
        self._tail = mmap.mmap(tail, TAIL_BYTES)

    def __setitem__(self, field: str, value: int) -> None:
        if field not in self.TAIL_FIELDS:
            super().__setitem__(field, value)
            return
        offset, code = self.TAIL_FIELDS[field]
        struct.pack_into("=" + code, self._tail, offset, value & ((1 << 8 * struct.calcsize("=" + code)) - 1))

    def describe(self, index: int, at: int, length: int, frames: int, src: bytes, vnet: int) -> None:
        """Write the description of a run."""
        RUN.pack_into(self.memory, RUNS_AT + index * RUN.size, at, length, frames, src, vnet)

    def write_descriptions(self, at: int, data: bytes) -> None:
        """Write anything over the descriptions."""
        self.memory[RUNS_AT + at : RUNS_AT + at + len(data)] = data


class FloodScribble(Scribble):
    FIELDS: ClassVar = {
        "magic": (0, "I"),
        "layout": (4, "I"),
        "reserve": (64, "Q"),
        "head": (72, "Q"),
        "version": (80, "I"),
        "number": (84, "I"),
        "sleep": (128, "I"),
    }


class CaptureScribble(Scribble):
    FIELDS: ClassVar = {"head": (64, "Q"), "lost": (72, "Q"), "tail": (128, "Q")}

    def fill(self, byte: bytes) -> None:
        """Write one byte all over the data."""
        self.memory[HEADER_BYTES:] = byte * self.size

"""A virtio-net driver in Python, with its guest's memory: the other side of a vhost-user port.

Slow and plain, so that a test can say what lies in a descriptor. The memory is a file, as a front-end shares
it; a test may write anything anywhere in it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence

GUEST = 0x100000
"""Physical address of the memory."""
FRONT_END = 0x7F0000000000
"""Its address in the front-end."""
MEMORY_BYTES = 4 << 20

NEXT, WRITE, INDIRECT = 1, 2, 4
TO_GUEST, FROM_GUEST = 0, 1

MRG_RXBUF = 1 << 15
EVENT_IDX = 1 << 29
VERSION_1 = 1 << 32
PROTOCOL_FEATURES = 1 << 30

DESCRIPTOR = struct.Struct("<QIHH")
PLAIN = bytes(10)
"""A virtio_net_hdr with nothing left to be done."""


class Queue:
    """One split ring in the guest's memory."""

    def __init__(self, memory: mmap.mmap, words: memoryview, at: int, entries: int) -> None:
        """``words``: the memory by 16 bits, which are written at once; ``struct`` writes zeros first."""
        self.memory, self.words, self.entries = memory, words, entries
        self.descriptors, self.available, self.used = at, at + 0x4000, at + 0x6000
        self.index = 0
        """Ours, of the available ring."""
        self.seen = 0
        """Of the used ring."""
        self.free = list(range(entries))
        self.kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def describe(self, index: int, address: int, size: int, flags: int = 0, following: int = 0) -> None:
        """Write a descriptor; ``address`` is the guest's."""
        DESCRIPTOR.pack_into(
            self.memory, self.descriptors + index * DESCRIPTOR.size, address, size, flags, following
        )

    def offer(self, head: int) -> None:
        """Put a head into the available ring, and move its index."""
        self.words[self.available // 2 + 2 + self.index % self.entries] = head
        self.index = self.index + 1 & 0xFFFF
        self.set_index(self.index)

    def set_index(self, index: int) -> None:
        """Write any available index, also a wrong one."""
        self.words[self.available // 2 + 1] = index

    def wants_kick(self, before: int) -> bool:
        """Whether the device asks for a kick by its flag; ``before`` is not used without event indices."""
        return not self.words[self.used // 2] & 1

    def used_index(self) -> int:
        """The device's index."""
        return self.words[self.used // 2 + 1]

    def returned(self) -> list[tuple[int, int]]:
        """Heads and bytes that came back since the last time."""
        found = []
        while self.seen != self.used_index():
            at = self.used + 4 + 8 * (self.seen % self.entries)
            head, size = struct.unpack_from("<II", self.memory, at)
            found.append((head, size))
            self.seen = self.seen + 1 & 0xFFFF
        return found

    def kicks(self) -> None:
        """Kick the device."""
        os.eventfd_write(self.kick, 1)

    def calls(self) -> int:
        """How often the device has called since the last time."""
        try:
            return os.eventfd_read(self.call)
        except BlockingIOError:
            return 0


class Driver:
    """Both queues, and buffers in the memory behind them."""

    def __init__(self, features: int = VERSION_1 | MRG_RXBUF, entries: int = 64) -> None:
        self.features = features
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, MEMORY_BYTES)
        self.memory = mmap.mmap(self.fd, MEMORY_BYTES)
        self._words = memoryview(self.memory).cast("H")
        self.queues = [
            Queue(self.memory, self._words, 0x10000 * which, entries) for which in (TO_GUEST, FROM_GUEST)
        ]
        self._next = 0x20000
        self._chains: dict[int, list[tuple[int, int, int]]] = {}
        """Of buffers that were posted: descriptor, offset and bytes of each part, by their head."""

    @property
    def header_bytes(self) -> int:
        """Bytes of the header in the queues."""
        return 12 if self.features & (VERSION_1 | MRG_RXBUF) else 10

    def place(self, size: int) -> int:
        """Return an offset for so many bytes; old places are used again when the memory is full."""
        if self._next + size > MEMORY_BYTES:
            self._next = 0x20000
        at = self._next
        self._next += (size + 63) // 64 * 64
        return at

    def send(self, frame: bytes, header: bytes = PLAIN, parts: Sequence[int] = ()) -> int:
        """Offer a frame, cut after so many bytes each (of header and frame); returns the chain's head."""
        data = header.ljust(self.header_bytes, b"\0") + frame
        pieces = []
        for size in parts:
            pieces.append(data[:size])
            data = data[size:]
        return self.send_pieces([*pieces, data])

    def send_pieces(self, pieces: Sequence[bytes]) -> int:
        """Offer a chain of these buffers."""
        queue = self.queues[FROM_GUEST]
        self.reclaim()
        indices = [queue.free.pop(0) for _ in pieces]
        for number, (index, piece) in enumerate(zip(indices, pieces, strict=True)):
            at = self.place(len(piece))
            self.memory[at : at + len(piece)] = piece
            more = number + 1 < len(indices)
            queue.describe(
                index, GUEST + at, len(piece), NEXT if more else 0, indices[number + 1] if more else 0
            )
        self._chains[indices[0]] = [(index, 0, 0) for index in indices]
        queue.offer(indices[0])
        return indices[0]

    def send_indirect(self, pieces: Sequence[bytes]) -> int:
        """Offer a chain of these buffers by a table."""
        queue = self.queues[FROM_GUEST]
        self.reclaim()
        table = self.place(DESCRIPTOR.size * len(pieces))
        for number, piece in enumerate(pieces):
            at = self.place(len(piece))
            self.memory[at : at + len(piece)] = piece
            more = number + 1 < len(pieces)
            DESCRIPTOR.pack_into(
                self.memory,
                table + number * DESCRIPTOR.size,
                GUEST + at,
                len(piece),
                NEXT if more else 0,
                number + 1 if more else 0,
            )
        head = queue.free.pop(0)
        queue.describe(head, GUEST + table, DESCRIPTOR.size * len(pieces), INDIRECT)
        self._chains[head] = [(head, 0, 0)]
        queue.offer(head)
        return head

    def reclaim(self) -> list[tuple[int, int]]:
        """Take back chains that the device has sent; returns what it said of them."""
        queue = self.queues[FROM_GUEST]
        returned = queue.returned()
        for head, _ in returned:
            queue.free += [index for index, _, _ in self._chains.pop(head, [(head, 0, 0)])]
        return returned

    def post(self, count: int = 1, size: int = 2048, parts: Sequence[int] = ()) -> None:
        """Offer buffers to receive into, each of ``size`` bytes or of these parts."""
        queue = self.queues[TO_GUEST]
        for _ in range(count):
            chain = []
            for each in parts or (size,):
                chain.append((queue.free.pop(0), self.place(each), each))
            for number, (index, at, each) in enumerate(chain):
                more = number + 1 < len(chain)
                flags = WRITE | (NEXT if more else 0)
                queue.describe(index, GUEST + at, each, flags, chain[number + 1][0] if more else 0)
            self._chains[1 << 16 | chain[0][0]] = chain
            queue.offer(chain[0][0])

    def receive(self) -> list[tuple[bytes, bytes]]:
        """Headers (12 bytes or 10) and frames that have come; their buffers are free again."""
        queue = self.queues[TO_GUEST]
        found: list[tuple[bytes, bytes]] = []
        left, data = 0, b""
        for head, size in queue.returned():
            chain = self._chains.pop(1 << 16 | head)
            queue.free += [index for index, _, _ in chain]
            here = b"".join(self.memory[at : at + each] for _, at, each in chain)[:size]
            if not here:
                continue
            if not left:
                data = b""
                header = here[: self.header_bytes]
                left = struct.unpack_from("<H", header, 10)[0] if self.features & MRG_RXBUF else 1
            data += here
            left -= 1
            if not left:
                found.append((data[: self.header_bytes], data[self.header_bytes :]))
        assert not left, "a frame has ended before all of its buffers were there"
        return found

    def frames(self) -> list[bytes]:
        """Frames that have come."""
        return [frame for _, frame in self.receive()]

    def close(self) -> None:
        """Let go of the memory and the ends of the queues."""
        self._words.release()
        self.memory.close()
        for fd in (self.fd, *(end for queue in self.queues for end in (queue.kick, queue.call))):
            os.close(fd)

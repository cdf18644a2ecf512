"""The VMs of a soak: pairs that check every frame, and visitors that behave as badly as they like.

Every frame is one of ``tests.helpers.guests.conversation``: its bytes follow from its addresses and its
number, so its receiver can tell whether it is whole. A frame with a stolen source has a number that no
honest one has.
"""

from __future__ import annotations

import errno
import random
import struct
import time

from tests.helpers.guests.conversation import OURS, Conversation, End, numbered
from tests.helpers.guests.fake_vm import BROADCAST, DatagramVM, FakeVM, StreamVM

SPOOFED = 1 << 62
"""Numbers from here on are those of frames whose source is stolen."""
MOST_UNSENT = 1 << 16
"""Bytes that are kept for a link that takes no more."""
_NUMBER = struct.Struct(">HQ")


class Watched(End):
    """An end that counts all its frames and knows a spoofed one."""

    def __init__(self, vm: FakeVM, own: bytes) -> None:
        super().__init__(vm, own)
        self.frames = 0
        """Frames received, from any sender."""
        self.missed = 0
        """Frames sent before the partner was there."""

    def overrun(self, frames: int, seconds: float) -> None:
        """Send so many frames, whether the partner reads them or not, or as many as go in that time."""
        goal, deadline = self.sent + frames, time.monotonic() + seconds
        while self.sent < goal and time.monotonic() < deadline and not self.closed:
            with self._until_closed():
                if len(self._unsent) <= MOST_UNSENT and self._put(
                    numbered(self.partner.own, self.own, self.sent + 1)
                ):
                    self.sent += 1
            if len(self._unsent) > MOST_UNSENT // 2 or self.sent == goal:
                self.flush()

    def _check(self, frame: bytes) -> None:
        self.frames += 1
        if len(frame) >= 22:
            kind, number = _NUMBER.unpack_from(frame, 12)
            if kind == OURS and number >= SPOOFED:
                self.wrong.append(f"spoofed: {frame[:32].hex()}")
                return
        super()._check(frame)


class Pair(Conversation):
    """Two VMs that talk all the time."""

    def __init__(self, name: str, one: FakeVM, one_mac: bytes, other: FakeVM, other_mac: bytes) -> None:
        super().__init__(one, one_mac, other, other_mac)
        self.name = name
        self.watched = Watched(one, one_mac), Watched(other, other_mac)
        self.ends = self.watched
        self.ends[0].partner, self.ends[1].partner = self.ends[1], self.ends[0]


class Visitor(Watched):
    """A VM that comes and goes. It is its own partner, as far as an end needs one."""

    def __init__(self, vm: FakeVM, own: bytes, kind: str, slot: int) -> None:
        super().__init__(vm, own)
        self.partner = self
        self.kind = kind
        self.slot = slot
        """Which datagram socket it has; 0 if it has another kind of link."""
        self.reads = True
        self._number = 0

    def say(self, dst: bytes, times: int = 1, src: bytes | None = None) -> None:
        """Send frames until the link accepts no more; ``src`` is their source."""
        with self._until_closed():
            for _ in range(times if not self.closed else 0):
                self._number += 1
                number = self._number + (SPOOFED if src else 0)
                if len(self._unsent) > MOST_UNSENT or not self._put(numbered(dst, src or self.own, number)):
                    break
                self.sent += 1
        self.flush()

    def spoil(self, rng: random.Random) -> None:
        """Send what is no frame: on a stream that ends the link."""
        if isinstance(self.vm, StreamVM):
            self._unsent += struct.pack(">I", rng.choice((0, 13, 1 << 20, 0xFFFFFFFF)))
            self.flush()
        elif not self.closed:
            with self._until_closed():
                try:
                    self.vm.sock.send(bytes(rng.choice((1, 13, 70_000))))
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.EMSGSIZE, errno.ENOBUFS):
                        raise

    def die(self, rng: random.Random) -> None:
        """Go without a word, perhaps within a frame, perhaps leaving the socket's path behind."""
        if isinstance(self.vm, StreamVM):
            self._put(numbered(BROADCAST, self.own, self._number + 1))
            self.flush(keep=rng.randrange(60))
        if isinstance(self.vm, DatagramVM) and rng.random() < 0.5:
            self.vm.vanish()
        else:
            self.vm.close()

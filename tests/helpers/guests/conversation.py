"""Two VMs that send each other numbered frames all the time, and check every byte of what arrives.

A frame's bytes follow from its addresses and its number, so a receiver can build it again and
compare. A number that is not greater than the last one is a frame that came twice or too late; a gap is
frames lost.

Each side sends at most ``WINDOW`` frames more than the other has received, so that nothing is lost in a full
queue; when nothing comes through, it goes on with a frame every ``PROBE_S``, so that the end of an outage is
seen.
"""

from __future__ import annotations

import contextlib
import random
import struct
import threading
import time
from collections.abc import Iterator

from tests.helpers.guests.fake_vm import ETHERTYPE, FakeVM, LinkClosed, StreamVM
from tests.helpers.guests.waiting import wait_for

WINDOW = 64
PROBE_S = 0.002
AT_ONCE = 64
CUT = 3000
"""A stream is sent in pieces that end anywhere: up to so many bytes wait for the next time."""
OURS = 0x88B6  # IEEE 802 local experimental 2; ``fake_vm`` uses the first
KERNELS = {0x0800, 0x0806, 0x86DD}
_HEAD = struct.Struct(">6s6sHQ")
_BODY = random.Random(4711).randbytes(8192)


def numbered(dst: bytes, src: bytes, number: int) -> bytes:
    """Frame ``number`` from one address to another; sizes go up and down between 60 and 1,500 bytes."""
    size = 60 + number * 7919 % 1441
    start = number * 31 % (len(_BODY) - 1500)
    return _HEAD.pack(dst, src, OURS, number) + _BODY[start : start + size - _HEAD.size]


class End:
    """One of the two."""

    def __init__(self, vm: FakeVM, own: bytes) -> None:
        self.vm = vm
        self.own = own
        self.partner: End
        self.sent = self.received = self.last = 0
        """Frames sent and received, and the number of the last one received."""
        self.wrong: list[str] = []
        self.closed = ""
        """What the switch closed the link with."""
        self.worst_gap = 0.0
        """Longest time in seconds without a frame since ``mark``."""
        self._heard_at = self._sent_at = time.monotonic()
        self._unsent = bytearray()

    def mark(self) -> None:
        """Measure gaps from now on."""
        self.worst_gap, self._heard_at = 0.0, time.monotonic()

    def reconnect(self, vm: FakeVM) -> None:
        """Go on over another link."""
        self.vm.close()
        self.vm, self.closed, self._unsent = vm, "", bytearray()

    def send(self) -> bool:
        """Send what may be sent now; whether it was anything."""
        before, now = self.sent, time.monotonic()
        with self._until_closed():
            self.flush()
            while self.sent < before + AT_ONCE and len(self._unsent) < CUT and not self.closed:
                room = self.sent - self.partner.last < WINDOW
                if not room and now - self._sent_at < PROBE_S:
                    break
                frame = numbered(self.partner.own, self.own, self.sent + 1)
                if not self._put(frame):
                    break
                self.sent += 1
                self._sent_at = now
            self.flush(keep=random.randrange(CUT))
        return self.sent != before

    def flush(self, keep: int = 0) -> None:
        """Send what a stream has to send, but for so many bytes."""
        with self._until_closed(), contextlib.suppress(BlockingIOError):
            while len(self._unsent) > keep and not self.closed:
                del self._unsent[: self.vm.sock.send(self._unsent[: len(self._unsent) - keep])]

    def receive(self) -> bool:
        """Take and check what has come; whether it was anything."""
        frames: list[bytes] = []
        with self._until_closed():
            frames = self.vm.drain()
        with contextlib.suppress(LinkClosed, OSError, TimeoutError):  # what came before the end
            while self.closed:
                frames.append(self.vm.receive(0.0))
        for frame in frames:
            self._check(frame)
        return bool(frames)

    def _put(self, frame: bytes) -> bool:
        if isinstance(self.vm, StreamVM):
            self._unsent += self.vm.encode(frame)
            return True
        return self.vm.offer(frame)

    @contextlib.contextmanager
    def _until_closed(self) -> Iterator[None]:
        try:
            yield
        except (LinkClosed, BrokenPipeError, ConnectionResetError, ConnectionRefusedError) as error:
            self.closed = str(error)

    def _check(self, frame: bytes) -> None:
        if len(frame) < _HEAD.size:
            self.wrong.append(f"{len(frame)} bytes")
            return
        dst, src, kind, number = _HEAD.unpack_from(frame)
        if kind != OURS:
            if kind not in KERNELS | {ETHERTYPE}:
                self.wrong.append(f"kind {kind:04x}: {frame[:32].hex()}")
        elif frame != numbered(dst, src, number):
            self.wrong.append(f"not frame {number}: {frame[:32].hex()}")
        elif dst == self.own and src == self.partner.own:
            if number <= self.last:
                self.wrong.append(f"frame {number} after {self.last}")
            self.last = max(self.last, number)
            self.received += 1
            now = time.monotonic()
            self.worst_gap, self._heard_at = max(self.worst_gap, now - self._heard_at), now


class Conversation:
    """Both of them."""

    def __init__(self, one: FakeVM, one_mac: bytes, other: FakeVM, other_mac: bytes) -> None:
        self.ends = End(one, one_mac), End(other, other_mac)
        self.ends[0].partner, self.ends[1].partner = self.ends[1], self.ends[0]
        self._lost_before = 0

    @property
    def wrong(self) -> list[str]:
        """Every frame that should not have come."""
        return [text for end in self.ends for text in end.wrong]

    @property
    def lost(self) -> int:
        """Frames sent since ``begin`` and not received; after ``settle``."""
        return sum(end.sent - end.partner.received for end in self.ends) - self._lost_before

    @property
    def closed(self) -> list[str]:
        """Why the switch closed links, if it did."""
        return [end.closed for end in self.ends if end.closed]

    def begin(self) -> None:
        """Talk until both hear each other; frames from before that do not count as lost."""
        assert self.flows()
        self.settle()
        self._lost_before += self.lost

    def pump(self) -> bool:
        """Send and receive what can be; whether it was anything."""
        return any([*(end.send() for end in self.ends), *(end.receive() for end in self.ends)])

    def run(self, seconds: float) -> None:
        """Talk for some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.pump():
                time.sleep(0.0005)

    def flows(self, more: int = 50) -> bool:
        """Talk until each side has received ``more`` frames than now, or a link is closed; whether it did."""
        goals = [end.received + more for end in self.ends]

        def enough() -> bool:
            self.run(0.005)
            return bool(self.closed) or all(
                end.received >= goal for end, goal in zip(self.ends, goals, strict=True)
            )

        wait_for(enough, lambda: f"frames both ways, got {[end.received for end in self.ends]} of {goals}")
        return not self.closed

    def settle(self) -> None:
        """Receive what is still on its way: until nothing has come for a while."""
        quiet_since = time.monotonic()
        while time.monotonic() < quiet_since + 0.3:
            for end in self.ends:
                end.flush()
            if any([end.receive() for end in self.ends]):  # noqa: C419 - both of them
                quiet_since = time.monotonic()
            time.sleep(0.001)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Talk in the background, then settle."""
        over = threading.Event()

        def talk() -> None:
            while not over.is_set():
                self.run(0.01)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.settle()

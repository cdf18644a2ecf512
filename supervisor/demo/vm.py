"""One fake VM of ``supervisor demo``: a process of its own, attached to the switch like a real VM.

Theory of operation
-------------------
A VM is a link (how its kind of socket carries frames), a role (what it sends and answers) and one loop around
a ``poll``. It obeys lines on standard input (``stuck``, ``resume``) and ends with it, so a killed demo leaves
no VM behind. Four times a second it writes a report, one line of JSON, to standard output. Until it is told
to go it also announces itself as often, as a kernel does with ARP, so that every worker learns its port.

A frame carries a sequence number, its time and a fixed filling. Every receiver checks length, filling and
sequence, so it detects cut, mixed and repeated frames. Like a kernel, a VM does not read on while it has
frames that it cannot send.

A ``stuck`` VM really is stuck: the process runs on, holds its socket open, and reads nothing.
"""

import argparse
import json
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

FRAME_BYTES = 1514
BROADCAST = b"\xff" * 6
_ETHERTYPE = b"\x88\xb5"  # reserved for local experiments (IEEE 802)
_LENGTH = struct.Struct("!I")
_STAMP = struct.Struct("!QQ")  # sequence, monotonic nanoseconds
_STAMP_AT = 14
_FILLING_AT = _STAMP_AT + _STAMP.size
_FILLING = bytes(index % 251 for index in range(FRAME_BYTES - _FILLING_AT))

WINDOW = 32
"""Frames under way in a loop: enough to keep its VMs busy, too few to fill any queue."""
PACE = 20_000
"""Frames a second of a source: fewer than a sink can read, and many times the size of a queue."""
_LOST_AFTER_NS = 250_000_000
_REPORT_S = 0.25
_BURST = 64
_READ_BYTES = 256 << 10
_SOCKET_BYTES = 1 << 20
_STDIN, _STDOUT = 0, 1


class Link(Protocol):
    """How one kind of socket carries frames; it never waits."""

    socket: socket.socket
    unsent: bytes
    """Bytes that it could not send yet."""

    def send(self, frames: Sequence[bytes]) -> int:
        """Send unsent bytes, then as many frames as there is room for; return their number."""

    def receive(self) -> list[bytes]:
        """Return some received frames. Raises EOFError if the switch has hung up."""


class StreamLink:
    """A stream that carries a length of four bytes before each frame, as QEMU's does."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.unsent = b""
        self._partial = b""

    def send(self, frames: Sequence[bytes]) -> int:
        """Take all frames, or none while earlier bytes are unsent."""
        taken = 0 if self.unsent else len(frames)
        if taken:
            self.unsent = b"".join([part for frame in frames for part in (_LENGTH.pack(len(frame)), frame)])
        if self.unsent:
            with suppress(BlockingIOError):
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        return taken

    def receive(self) -> list[bytes]:
        """Return the complete frames."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        data = self._partial + data
        frames, start = [], 0
        while len(data) - start >= _LENGTH.size:
            end = start + _LENGTH.size + _LENGTH.unpack_from(data, start)[0]
            if end > len(data):
                break
            frames.append(data[start + _LENGTH.size : end])
            start = end
        self._partial = data[start:]
        return frames


class MessageLink:
    """A socket that keeps the bounds of frames: seqpacket (User-Mode Linux), datagram (libkrun, vfkit)."""

    unsent = b""

    def __init__(self, path: str, kind: socket.SocketKind) -> None:
        self.socket = socket.socket(socket.AF_UNIX, kind)
        if kind == socket.SOCK_DGRAM:
            self.socket.bind(f"{path}.vm")  # the switch sends to this path
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self._has_end = kind == socket.SOCK_SEQPACKET

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames one by one until there is no more room."""
        for sent, frame in enumerate(frames):
            try:
                self.socket.send(frame)
            except BlockingIOError:
                return sent
        return len(frames)

    def receive(self) -> list[bytes]:
        """Give a burst."""
        frames: list[bytes] = []
        with suppress(BlockingIOError):
            while len(frames) < _BURST:
                frame = self.socket.recv(2 * FRAME_BYTES)
                if not frame and self._has_end:
                    raise EOFError
                frames.append(frame)
        return frames


class Role:
    """The base of all roles: only checks and counts received frames."""

    tick_ms = 50
    """How long the loop may wait before it calls ``due``."""

    def __init__(self, own: bytes, peer: bytes) -> None:
        self.own, self.peer = own, peer
        self.heard = False
        """Whether the peer's announcement has come, so that frames reach it."""
        self.received = self.sent = self.bad = self.lost = 0
        self.round_trips: dict[int, int] = {}
        """Round trips since the last report: nanoseconds, to five significant bits, and their number."""
        self._last = -1

    def take(self, frames: Sequence[bytes], now: int) -> list[bytes]:
        """Check received frames and return the frames to send for them; ``now`` in nanoseconds."""
        answers: list[bytes] = []
        for frame in frames:
            if frame[:6] != self.own:
                self.heard |= frame[:12] == BROADCAST + self.peer
                continue  # flooded, not addressed to us
            number, made = _STAMP.unpack_from(frame, _STAMP_AT) if len(frame) == FRAME_BYTES else (-1, 0)
            if number <= self._last or frame[6:12] != self.peer or frame[_FILLING_AT:] != _FILLING:
                self.bad += 1
                continue
            self._last = number
            self.received += 1
            answers += self._accept(frame, number, now - made)
        return answers

    def due(self, now: int) -> list[bytes]:
        """Return the frames that are due by now."""
        return []

    def _accept(self, frame: bytes, number: int, age: int) -> list[bytes]:
        return []

    def _make(self, count: int, now: int) -> list[bytes]:
        first, self.sent = self.sent, self.sent + count
        head = self.peer + self.own + _ETHERTYPE
        return [head + _STAMP.pack(number, now) + _FILLING for number in range(first, first + count)]


class Mirror(Role):
    """Sends each frame back to its sender."""

    def _accept(self, frame: bytes, number: int, age: int) -> list[bytes]:
        self.sent += 1
        return [self.peer + self.own + frame[12:]]


class Loop(Role):
    """Keeps ``WINDOW`` frames going round by way of a mirror and times each round.

    Frames that do not come back in time, or that others have overtaken, are counted lost and replaced.
    """

    def __init__(self, own: bytes, peer: bytes) -> None:
        super().__init__(own, peer)
        self._next = 0
        """The next number to come back; all from it to ``sent`` are under way."""
        self._heard = 0

    def due(self, now: int) -> list[bytes]:
        """Fill the window up."""
        if self.sent > self._next and now - self._heard > _LOST_AFTER_NS:
            self._lose_until(self.sent)
        missing = WINDOW - (self.sent - self._next)
        if missing:
            self._heard = now
        return self._make(missing, now)

    def _accept(self, frame: bytes, number: int, age: int) -> list[bytes]:
        if number >= self._next:
            self._lose_until(number)
            self._next = number + 1
            coarse = max(0, age.bit_length() - 5)
            age = age >> coarse << coarse
            self.round_trips[age] = self.round_trips.get(age, 0) + 1
        return []

    def _lose_until(self, number: int) -> None:
        self.lost += number - self._next
        self._next = number


class Source(Role):
    """Sends ``PACE`` frames a second one way, without answers."""

    tick_ms = 2

    def __init__(self, own: bytes, peer: bytes) -> None:
        super().__init__(own, peer)
        self._since = 0

    def due(self, now: int) -> list[bytes]:
        """Return the frames for the time since the last call, for 20 ms at most."""
        self._since = max(self._since, now - 20_000_000)
        count = (now - self._since) * PACE // 1_000_000_000
        self._since += count * 1_000_000_000 // PACE
        return self._make(count, now)


KINDS = {"qemu": socket.SOCK_STREAM, "bess": socket.SOCK_SEQPACKET, "vfkit": socket.SOCK_DGRAM}
ROLES: dict[str, type[Role]] = {"loop": Loop, "mirror": Mirror, "source": Source, "sink": Role}


class Vm:
    """A link and a role, and the loop that brings them together."""

    def __init__(self, link: Link, role: Role) -> None:
        self._link, self._role = link, role
        self._going = self._stuck = False
        self._outbox: list[bytes] = []

    def run(self) -> None:
        """Run until standard input ends (returns) or the link does (EOFError, OSError)."""
        poll = select.poll()
        poll.register(_STDIN, select.POLLIN)
        link = self._link.socket.fileno()
        report_at = 0.0
        while True:
            sending = self._outbox or self._link.unsent
            reading = not sending and not self._stuck
            poll.register(link, (select.POLLOUT if sending else 0) | (select.POLLIN if reading else 0))
            ready = dict(poll.poll(self._role.tick_ms))
            if _STDIN in ready and not self._obey(os.read(_STDIN, 1024)):
                return
            happened = ready.get(link, 0)
            if happened & (select.POLLHUP | select.POLLERR):
                raise EOFError
            self._turn(time.monotonic_ns(), bool(happened & select.POLLIN))
            if time.monotonic() >= report_at:
                report_at = time.monotonic() + _REPORT_S
                self._report()
                if not self._going:
                    self._outbox.append(BROADCAST + self._role.own + _ETHERTYPE + bytes(46))

    def _obey(self, commands: bytes) -> bool:
        for command in commands.split():
            self._going |= command == b"go"
            if command in {b"stuck", b"resume"}:
                self._stuck = command == b"stuck"
        return bool(commands)

    def _turn(self, now: int, readable: bool) -> None:
        if readable:
            self._outbox = self._role.take(self._link.receive(), now)
        if self._going and not self._outbox and not self._link.unsent:
            self._outbox = self._role.due(now)
        del self._outbox[: self._link.send(self._outbox)]

    def _report(self) -> None:
        names = ("heard", "sent", "received", "bad", "lost", "round_trips")
        report = {"at": time.monotonic()} | {name: getattr(self._role, name) for name in names}
        os.write(_STDOUT, json.dumps(report).encode() + b"\n")
        self._role.round_trips = {}


def main() -> None:
    """Be one VM: ``python -m supervisor.demo.vm TRANSPORT PATH ROLE OWN-MAC PEER-MAC``."""
    parser = argparse.ArgumentParser(prog="demo_vm")
    parser.add_argument("transport", choices=KINDS)
    parser.add_argument("path")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("own", type=bytes.fromhex)
    parser.add_argument("peer", type=bytes.fromhex)
    given = parser.parse_args()
    kind = KINDS[given.transport]
    link: Link = StreamLink(given.path) if kind == socket.SOCK_STREAM else MessageLink(given.path, kind)
    with suppress(EOFError, ConnectionError):
        Vm(link, ROLES[given.role](given.own, given.peer)).run()


if __name__ == "__main__":
    main()

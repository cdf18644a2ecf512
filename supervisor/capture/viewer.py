"""The viewer's side of a capture: read the rings of many ports, write one pcapng file.

Theory of operation
-------------------
The viewer asks the supervisor for rings (``server``), reads them in turn and writes the frames. It reads one
ring after the other, so a frame may be older than a frame that was read before from another ring. Therefore
frames wait for ``SETTLE_NS`` and are written in the order of time.

It never delays a worker. If the viewer is too slow (its disk, or the program that it writes to), its rings
are full and further frames are not copied; the file's statistics and the summary have their number. It ends
if it writes to a pipe whose reader has gone, even while no frame comes. It ends if the disk is full; the file
ends with the last whole block then.

Example: ports 1 and 2, a frame from 1 to 2: the file has it as received at interface `qemu-1` and, some
microseconds later, as sent at `qemu-2`. Had ring 2 been full, it would have a second copy at `qemu-1` with
the comment "dropped: egress_full, for port 2".
"""

import os
import select
import socket
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple, Protocol

from forwarder import _core
from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError
from forwarder.messages import CaptureRing, Message, Reply, WantCapture
from forwarder.rendezvous import CAPTURES, path
from supervisor.base.paths import absolute
from supervisor.base.runtime_dir import unreached
from supervisor.capture import pcapng
from supervisor.capture.pcapng import IN, OUT
from supervisor.console import patience

LOOK_S = 0.02
"""Pause between two reads of all rings. A ring of 8 MiB fills in 6 ms at 10 Gbit/s, so fast ports may lose
frames."""
SETTLE_NS = 50_000_000
MOST_LEFT = 1 << 18
"""Frames in the largest ring, of 32 bytes each."""
DROPPED = 3
TO_VM = frozenset({"filtered", "sources", "refused", "stale_ring", "flood_lost"})
"""Reasons of drops on the way to the VM; all other drops are on the way from it."""


_time_of = itemgetter(0)


class Summary(NamedTuple):
    """The figures of a capture."""

    frames: int
    lost: int
    ports: int
    broken: int
    """Ports whose worker has damaged its ring: later frames of theirs are missing."""
    early: bool
    """Whether the supervisor has gone, and the capture with it."""


class Format(Protocol):
    """A format of files: the functions of ``pcapng``."""

    def section(self, application: str) -> bytes:
        """Return the head of a file."""

    def interface(self, name: str, description: str, snap: int) -> bytes:
        """Return a port's description."""

    def packet(
        self, number: int, time_ns: int, data: bytes, length: int, *, flags: int, comment: str = ""
    ) -> bytes:
        """Return a frame."""

    def statistics(self, number: int, time_ns: int, received: int, lost: int) -> bytes:
        """Return a frame that was seen at a port."""


class _Port(NamedTuple):
    interface: int
    reader: _core.CaptureReader


class Viewer:
    """One capture, from its request to its file."""

    def __init__(self, runtime_dir: str, wanted: WantCapture, form: Format = pcapng) -> None:
        """Ask, and wait for the answer. Raises LocalError if it is refused or no supervisor runs."""
        self._form = form
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path(runtime_dir, CAPTURES))
        except OSError as error:
            sock.close()
            raise LocalError(unreached(absolute(runtime_dir), error)) from None
        self._channel = Channel(sock)
        with suppress(ChannelClosedError):  # the answer has the reason
            self._channel.send(wanted)
        self._snap = wanted.snap
        self._ports: dict[tuple[int, int], _Port] = {}
        self._waiting: list[tuple[int, bytes]] = []
        """Time and block of each frame that is not written yet."""
        self._frames = 0
        self._of_port: Counter[int] = Counter()
        """Frames by interface."""
        self._since_1970 = time.time_ns() - time.monotonic_ns()
        self._await_reply(runtime_dir)

    def run(self, output: int, application: str, ended: Callable[[], bool]) -> Summary:
        """Write until ``ended``, or until the supervisor ends. Raises LocalError; OSError from the output."""
        self._output = output
        self._put([self._form.section(application)])
        going = True
        while going and not ended():
            going = self._receive()
            more = self._read()
            self._write(time.monotonic_ns() - SETTLE_NS)
            if not more:
                self._wait()
        self._drain()
        self._write(time.monotonic_ns())
        return self._finish(early=not going)

    def _wait(self) -> None:
        """Wait for the supervisor, or a while.

        Raises BrokenPipeError if the output has no reader any more.
        """
        waiting = select.poll()
        waiting.register(self._channel, select.POLLIN)
        waiting.register(self._output, 0)  # an error is reported anyway
        for descriptor, events in waiting.poll(LOOK_S * 1000):
            if descriptor == self._output and events & select.POLLERR:
                raise BrokenPipeError

    def close(self) -> None:
        """Hang up; the workers stop copying."""
        self._channel.close()

    def _await_reply(self, runtime_dir: str) -> None:
        try:
            waiting = select.poll()
            waiting.register(self._channel, select.POLLIN)
            patience.wait(waiting, runtime_dir)
            received = self._channel.receive()
        except PeerError as error:
            self.close()
            raise LocalError(f"the supervisor has hung up: {error}") from None
        if received is None or received[0] != Reply(True, None):
            self.close()
            why = received[0].result if received and isinstance(received[0], Reply) else "no answer"
            raise LocalError(str(why))

    def _receive(self) -> bool:
        while True:
            try:
                received = self._channel.receive()
            except ChannelClosedError:
                return False
            except PeerError as error:
                raise LocalError(f"the supervisor is of another version: {error}") from None
            if received is None:
                return True
            self._take(*received)

    def _take(self, message: Message, descriptors: tuple[int, ...]) -> None:
        if isinstance(message, Reply):
            raise LocalError(str(message.result))  # the capture cannot go on
        if isinstance(message, CaptureRing):
            reader = _core.CaptureReader(descriptors[0], message.port, message.epoch)
            self._ports[message.port, message.epoch] = _Port(len(self._ports), reader)
            about = f"port {message.port}, {message.transport}"
            self._put([self._form.interface(message.name, about, self._snap)])
        close_all(descriptors)

    def _read(self) -> bool:
        """Read new frames; return whether more may follow at once."""
        more = False
        for port in self._ports.values():
            seen = port.reader.read()
            more = more or len(seen) > 0
            self._keep(port, seen)
        return more

    def _drain(self) -> None:
        """Read all frames that were copied until now, but not those that arrive meanwhile.

        A worker that a guest has taken over may say of all its frames that they are older: of each port, no
        more are read than a ring holds.
        """
        now = time.monotonic_ns()
        left = dict.fromkeys(self._ports.values(), MOST_LEFT)
        while left:
            for port in list(left):
                seen = port.reader.read()
                earlier = [each for each in seen if each[0] <= now]
                self._keep(port, earlier)
                left[port] -= len(seen)
                if len(earlier) < len(seen) or not seen or left[port] <= 0:
                    del left[port]

    def _keep(self, port: _Port, seen: list[tuple[int, int, int, str, int, bytes]]) -> None:
        self._of_port[port.interface] += len(seen)
        self._waiting.extend(self._blocks(port, seen))

    def _blocks(
        self, port: _Port, seen: list[tuple[int, int, int, str, int, bytes]]
    ) -> Iterator[tuple[int, bytes]]:
        now = time.monotonic_ns()
        for said, way, peer, reason, length, data in seen:
            at = min(said, now)  # or a worker could say that its frames are of the future, and to be kept
            comment, flags = "", IN if way == IN else OUT
            if way == DROPPED:
                comment = f"dropped: {reason}" + (f", for port {peer}" if peer else "")
                flags = OUT if reason in TO_VM else IN
            time_ns = at + self._since_1970
            yield at, self._form.packet(port.interface, time_ns, data, length, flags=flags, comment=comment)

    def _write(self, until: int) -> None:
        self._waiting.sort(key=_time_of)  # little work: it is the frames of some ports, each in order
        due = bisect_right(self._waiting, until, key=_time_of)
        self._put([block for _, block in self._waiting[:due]])
        del self._waiting[:due]
        self._frames += due

    def _put(self, blocks: Sequence[bytes]) -> None:
        """Write blocks. If a file cannot take all, the whole ones of them stay in it."""
        data, done = memoryview(b"".join(blocks)), 0
        try:
            while done < len(data):
                done += os.write(self._output, data[done:])
        except OSError:
            ends = [0, *accumulate(map(len, blocks))]
            whole = ends[bisect_right(ends, done) - 1]
            with suppress(OSError):  # a pipe has no end
                os.ftruncate(self._output, os.lseek(self._output, 0, os.SEEK_CUR) - (done - whole))
            raise

    def _finish(self, *, early: bool) -> Summary:
        now = time.time_ns()
        lost = 0
        for port in self._ports.values():
            lost += port.reader.lost
            received = self._of_port[port.interface]
            self._put([self._form.statistics(port.interface, now, received, port.reader.lost)])
        broken = len({number for (number, _), port in self._ports.items() if port.reader.broken})
        return Summary(self._frames, lost, len({number for number, _ in self._ports}), broken, early)


def open_output(name: str) -> int:
    """Open a new file, or standard output for ``-``. Raises LocalError."""
    try:
        if name == "-":
            return os.dup(1)
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise LocalError(f"cannot write to {name}: {error.strerror}") from None

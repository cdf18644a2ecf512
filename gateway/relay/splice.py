"""Two connected sockets joined in the kernel: bytes go through a pipe, never through Python.

Each direction is a small machine of its own (``NEXT``): *flowing*, then *draining* once its source has said
that nothing more comes, then *ended*, which the sink has been told (``shutdown``). The connection is over
when both have ended. A half that has ended says nothing about the other, so half-closed connections work.

An error at either end is a reset for the other end, at once: what was on its way is lost, as it would be if
the two ends had been connected directly. A stream cannot be cut quietly.

A direction needs a pipe only while bytes are in it. It borrows one, fills it from its source and empties it
into its sink; it returns the pipe as soon as that is empty. So thousands of idle connections need two
descriptors each and no more. A sink that does not read keeps one pipe and stops the source by not being
read from: that is all the back-pressure there is, and it concerns nobody else.

A pipe is only filled when it is empty: EAGAIN from the source then means that the source is, since a full
pipe says the same.

``PIPE_BYTES`` by measurement, loopback TCP through one relay process that competes for two cores: 64 KiB
9.4 Gbit/s, 128 KiB 12.7, 256 KiB 13.4 and 12.5, 512 KiB 15.6, 1 MiB 13.0. Beyond 256 KiB it is noise, and a
user without privileges may have 64 MiB of pipes before new ones shrink.
"""

import contextlib
import enum
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from gateway.relay.poller import CLOSING, EDGE, FAILED, READ, WRITE, Poller

PIPE_BYTES = 256 << 10
KEPT_PIPES = 32
"""Empty pipes kept for the next that needs one: more than are filled at a time, unless readers stall."""

ROUNDS = 4
"""Times that a pipe is filled in a row before others get their turn: 1 MiB, or 0.5 ms."""

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_RESET = struct.pack("ii", 1, 0)


class Pipe(NamedTuple):
    """The two ends of a pipe."""

    out: int
    into: int


class Pipes:
    """Pipes to borrow."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self.lent = 0

    def borrow(self) -> Pipe:
        """Return an empty pipe. Raises OSError: no descriptor or no memory is left."""
        pipe = self._free.pop() if self._free else _new_pipe()
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Take a pipe back; one with bytes in it is closed."""
        self.lent -= 1
        if empty and len(self._free) < KEPT_PIPES:
            self._free.append(pipe)
        else:
            os.close(pipe.out)
            os.close(pipe.into)

    def close(self) -> None:
        """Close those that are not lent."""
        while self._free:
            for end in self._free.pop():
                os.close(end)


def _new_pipe() -> Pipe:
    pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    # Beyond the user's share of pipe memory it stays as small as the kernel made it, and is only slower.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(pipe.into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return pipe


class Half(enum.Enum):
    """The state of one direction."""

    FLOWING = "flowing"
    DRAINING = "draining"
    ENDED = "ended"


NEXT = {
    (Half.FLOWING, "source ended"): Half.DRAINING,
    (Half.DRAINING, "pipe empty"): Half.ENDED,
    # Everything else cannot happen: a source does not end twice, and a flowing direction with an empty pipe
    # flows on. A reset ends the whole connection, whatever the states of its halves.
}


class _End:
    """A socket, and what the kernel last said that it can do."""

    __slots__ = ("fd", "readable", "sock", "writable")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.readable = False
        self.writable = False


class _Direction:
    __slots__ = ("held", "pipe", "sink", "source", "state")

    def __init__(self, source: _End, sink: _End) -> None:
        self.source = source
        self.sink = sink
        self.state = Half.FLOWING
        self.pipe: Pipe | None = None
        self.held = 0


class Joined:
    """Two sockets that are one connection. It owns both, and closes them when it is over."""

    __slots__ = ("_directions", "_ends", "_over", "_pipes", "_poller")

    def __init__(
        self,
        poller: Poller,
        pipes: Pipes,
        near: socket.socket,
        far: socket.socket,
        over: Callable[["Joined", int], None],
    ) -> None:
        """``over`` is called once, with 0 or the errno of what broke the connection."""
        self._poller = poller
        self._pipes = pipes
        self._over: Callable[[Joined, int], None] | None = over
        one, other = _End(near), _End(far)
        self._ends = (one, other)
        self._directions = (_Direction(one, other), _Direction(other, one))
        poller.watch(one.fd, self._near_event, READ | WRITE | CLOSING | EDGE)
        poller.watch(other.fd, self._far_event, READ | WRITE | CLOSING | EDGE)

    def reset(self, error: int = errno.ECONNABORTED) -> None:
        """End it now: both ends get a reset. In vain once it is over."""
        self._close(error)

    def _near_event(self, events: int) -> None:
        self._event(self._ends[0], events)

    def _far_event(self, events: int) -> None:
        self._event(self._ends[1], events)

    def _event(self, end: _End, events: int) -> None:
        if events & FAILED and (error := end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            self._close(error)
            return
        end.readable |= bool(events & (READ | CLOSING | FAILED))
        end.writable |= bool(events & (WRITE | FAILED))
        self._pump(0)

    def _pump(self, _: int) -> None:
        """Move what can be moved; ask to be called again if there is more than a fair share."""
        if self._over is None:
            return
        try:
            unfinished = [_move(direction, self._pipes) for direction in self._directions]
        except OSError as error:
            self._close(error.errno or errno.EIO)
            return
        if all(direction.state is Half.ENDED for direction in self._directions):
            self._close(0)
        elif any(unfinished):
            self._poller.soon(self._pump)

    def _close(self, error: int) -> None:
        over, self._over = self._over, None
        if over is None:
            return
        for end in self._ends:
            self._poller.unwatch(end.fd)
            (abort if error else close)(end.sock)
        for direction in self._directions:
            if direction.pipe is not None:
                self._pipes.give_back(direction.pipe, empty=not direction.held)
                direction.pipe, direction.held = None, 0
        over(self, error)


def abort(sock: socket.socket) -> None:
    """Close ``sock`` so that its peer sees a reset; a unix socket is closed as usual, for want of resets."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    close(sock)


def close(sock: socket.socket) -> None:
    """Close ``sock``; an error that it still had to tell (a reset that came late) is of no interest now."""
    with contextlib.suppress(OSError):
        sock.close()


def _move(direction: _Direction, pipes: Pipes) -> bool:
    """Move bytes until one end has enough, and say whether it stopped before that. Raises OSError."""
    for _ in range(ROUNDS):
        if direction.state is Half.ENDED or not _emptied(direction):
            return False
        if direction.state is Half.DRAINING or not (direction.source.readable and direction.sink.writable):
            break
        _fill(direction, pipes)
    if direction.held:
        return True
    if direction.pipe is not None:
        pipes.give_back(direction.pipe, empty=True)
        direction.pipe = None
    if direction.state is Half.DRAINING:
        direction.sink.sock.shutdown(socket.SHUT_WR)
        direction.state = NEXT[direction.state, "pipe empty"]
        return False
    return direction.source.readable and direction.sink.writable


def _emptied(direction: _Direction) -> bool:
    """Empty the pipe into the sink as far as it goes, and say whether it is empty."""
    while direction.held:
        assert direction.pipe is not None
        if not direction.sink.writable:
            return False
        try:
            direction.held -= os.splice(direction.pipe.out, direction.sink.fd, direction.held, flags=_FLAGS)
        except BlockingIOError:
            direction.sink.writable = False
            return False
    return True


def _fill(direction: _Direction, pipes: Pipes) -> None:
    """Fill the empty pipe from the source as far as it goes."""
    if direction.pipe is None:
        direction.pipe = pipes.borrow()
    try:
        direction.held = os.splice(direction.source.fd, direction.pipe.into, PIPE_BYTES, flags=_FLAGS)
    except BlockingIOError:
        direction.source.readable = False
        return
    if not direction.held:
        direction.state = NEXT[direction.state, "source ended"]

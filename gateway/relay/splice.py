"""Join two connected sockets in the kernel: bytes go through a pipe, never through Python.

Each direction has its own state (``NEXT``): *flowing*, then *draining* once its source has ended, then
*ended*, after the sink's ``shutdown``. The connection is over when both directions have ended. The directions
are independent, so half-closed connections work.

If an end fails (a reset, a time-out), the other one gets a reset, so a stream is never cut silently. But
first it gets the bytes that the failed end had sent, as with a direct connection: a kernel delivers received
bytes before it reports a reset. So the bytes are moved, and the reset follows when the other end has
acknowledged them, or after ``LINGER_S``. So a client reads the 413 of a server that then closes and resets
its upload. Bytes on their way *to* the failed end are lost.

Urgent data (RFC 6093) is one marked byte. ``splice`` stops in front of it. It is read by itself, since the
sockets keep it in the stream (SO_OOBINLINE), and sent on with its mark.

A direction needs a pipe only while bytes are in it. It borrows one, fills it from its source and empties it
into its sink; it returns the pipe as soon as that is empty. So an idle connection needs only its two
descriptors. If a sink does not read, the direction keeps one pipe, and its source is not read: this
back-pressure concerns only this connection.

A pipe is filled only when it is empty. So EAGAIN means that the source is empty; a full pipe would give the
same error.
"""

import contextlib
import enum
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable

from gateway.relay.pipes import PIPE_BYTES, Pipe, Pipes
from gateway.relay.poller import CLOSING, EDGE, FAILED, READ, URGENT, WRITE, Poller

LINGER_S = 30.0
"""How long a reader may take for the bytes before a reset."""

ROUNDS = 4
"""Fills of a pipe in one turn: 1 MiB, or 0.5 ms."""

_SIOCATMARK = 0x8905
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_RESET = struct.pack("ii", 1, 0)


class Half(enum.Enum):
    """The state of one direction."""

    FLOWING = "flowing"
    DRAINING = "draining"
    ENDED = "ended"


NEXT = {
    (Half.FLOWING, "source ended"): Half.DRAINING,
    (Half.DRAINING, "pipe empty"): Half.ENDED,
    # No other pair can happen: a source ends once, and a flowing direction with an empty pipe flows on. An
    # error of a source is its end, too.
}


class _End:
    """A socket, and its readiness as the kernel last reported it."""

    __slots__ = ("failed", "fd", "readable", "sock", "urgent", "writable")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.readable = False
        self.writable = False
        self.urgent = False
        self.failed = 0
        """The errno that broke it."""


class _Direction:
    __slots__ = ("held", "marked", "opposite", "pipe", "sink", "source", "state")

    def __init__(self, source: _End, sink: _End) -> None:
        self.source = source
        self.sink = sink
        self.state = Half.FLOWING
        self.opposite = self
        """The other direction of the connection."""
        self.pipe: Pipe | None = None
        self.held = 0
        self.marked = b""
        """A byte of urgent data, which the sink gets before further bytes."""


class Joined:
    """One connection of two sockets, which are closed with it."""

    __slots__ = ("_directions", "_ends", "_lingers", "_over", "_pipes", "_poller")

    def __init__(
        self,
        poller: Poller,
        pipes: Pipes,
        sockets: tuple[socket.socket, socket.socket],
        over: Callable[["Joined", int], None],
        lingers: Callable[["Joined"], None],
    ) -> None:
        """``over`` is called once, with 0 or the errno of what broke the connection.

        ``lingers`` is called when one end has failed: call ``settle`` now and then, and ``reset`` after
        LINGER_S.
        """
        self._poller = poller
        self._pipes = pipes
        self._over: Callable[[Joined, int], None] | None = over
        self._lingers = lingers
        one, other = map(_End, sockets)
        self._ends = (one, other)
        there, back = self._directions = (_Direction(one, other), _Direction(other, one))
        there.opposite, back.opposite = back, there
        poller.watch(one.fd, self._near_event, READ | WRITE | URGENT | CLOSING | EDGE)
        poller.watch(other.fd, self._far_event, READ | WRITE | URGENT | CLOSING | EDGE)

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """The two ends, near and far."""
        return self._ends[0].sock, self._ends[1].sock

    def reset(self, error: int = errno.ECONNABORTED) -> None:
        """End it now: both ends get a reset. No effect once it is over."""
        self._close(error)

    def settle(self) -> None:
        """After a failure: end it if the remaining end has acknowledged all earlier bytes."""
        for direction in self._directions:
            if direction.source.failed and direction.state is Half.ENDED and not _unsent(direction.sink.sock):
                self._close(direction.source.failed)

    def _near_event(self, events: int) -> None:
        self._event(self._ends[0], events)

    def _far_event(self, events: int) -> None:
        self._event(self._ends[1], events)

    def _event(self, end: _End, events: int) -> None:
        if events & FAILED and not end.failed:
            self._failed(end, end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        end.readable |= bool(events & (READ | CLOSING | FAILED))
        end.writable |= bool(events & (WRITE | FAILED))
        end.urgent |= bool(events & URGENT)
        self._pump(0)

    def _failed(self, end: _End, error: int) -> None:
        if error and not end.failed:
            end.failed = error
            end.readable = True
            self._lingers(self)

    def _pump(self, _: int) -> None:
        """Move bytes; ask for another call if there is more than a fair share."""
        if self._over is None:
            return
        try:
            unfinished = [self._move(direction) for direction in self._directions]
        except OSError as error:  # no pipe is left
            self._close(error.errno or errno.EIO)
            return
        if all(end.failed for end in self._ends):
            self._close(self._ends[0].failed)
        elif any(end.failed for end in self._ends):
            self.settle()
        elif all(direction.state is Half.ENDED for direction in self._directions):
            self._close(0)
        if self._over is not None and any(unfinished):
            self._poller.soon(self._pump)

    def _move(self, direction: _Direction) -> bool:
        """Move bytes until one end blocks; return whether it stopped before.

        Raises OSError if no pipe is left.
        """
        source, sink = direction.source, direction.sink
        try:
            unfinished = not sink.failed and _move(direction, self._pipes)
        except _SourceError as error:
            self._failed(source, error.number)
            direction.state = NEXT[direction.state, "source ended"]
            return True
        except _SinkError as error:
            self._failed(sink, error.number)
            return True
        return unfinished

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
    """Close ``sock`` so that its peer sees a reset; a unix socket, which has none, is closed as usual."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    close(sock)


def close(sock: socket.socket) -> None:
    """Close ``sock``; a pending error (a late reset) is ignored."""
    with contextlib.suppress(OSError):
        sock.close()


class _SourceError(Exception):
    """A source has failed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.number = error.errno or errno.EIO


class _SinkError(_SourceError):
    """A sink has failed."""


def _unsent(sock: socket.socket) -> int:
    """Return how many bytes the peer has not acknowledged; 0 for a unix socket."""
    if sock.family == socket.AF_UNIX:
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _move(direction: _Direction, pipes: Pipes) -> bool:
    """As the method; raises the errors of the ends, too."""
    for _ in range(ROUNDS):
        if direction.state is Half.ENDED or not _emptied(direction):
            return False
        if direction.state is Half.DRAINING or not (direction.source.readable and direction.sink.writable):
            break
        _fill(direction, pipes)
    if direction.held or direction.marked:
        return True
    if direction.pipe is not None:
        pipes.give_back(direction.pipe, empty=True)
        direction.pipe = None
    if direction.state is Half.DRAINING:
        direction.state = NEXT[direction.state, "pipe empty"]
        # If both have ended, the sockets are closed at once, which has the same effect.
        if not direction.source.failed and direction.opposite.state is not Half.ENDED:
            _shut(direction.sink)
        return False
    return direction.source.readable and direction.sink.writable


def _shut(sink: _End) -> None:
    try:
        sink.sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        raise _SinkError(error) from None


def _emptied(direction: _Direction) -> bool:
    """Move bytes from the pipe to the sink; return whether the pipe is empty."""
    sink = direction.sink
    while direction.held or direction.marked:
        if not sink.writable:
            return False
        try:
            if direction.held:
                assert direction.pipe is not None
                direction.held -= os.splice(direction.pipe.out, sink.fd, direction.held, flags=_FLAGS)
            else:
                sink.sock.send(direction.marked, 0 if sink.sock.family == socket.AF_UNIX else socket.MSG_OOB)
                direction.marked = b""
        except BlockingIOError:
            sink.writable = False
            return False
        except OSError as error:
            raise _SinkError(error) from None
    return True


def _fill(direction: _Direction, pipes: Pipes) -> None:
    """Fill the empty pipe from the source."""
    if direction.pipe is None:
        direction.pipe = pipes.borrow()
    source = direction.source
    try:
        direction.held = os.splice(source.fd, direction.pipe.into, PIPE_BYTES, flags=_FLAGS)
    except BlockingIOError:
        if not (source.urgent and _take_mark(direction)):
            source.readable = False
        return
    except OSError as error:
        raise _SourceError(error) from None
    if not direction.held:
        direction.state = NEXT[direction.state, "source ended"]


def _take_mark(direction: _Direction) -> bool:
    """Take a byte of urgent data if it is next in the stream; return whether it was."""
    source = direction.source
    (at_mark,) = struct.unpack("i", fcntl.ioctl(source.sock, _SIOCATMARK, bytes(4)))
    if not at_mark:
        return False
    try:
        direction.marked = source.sock.recv(1)
    except BlockingIOError:  # the mark came before the byte
        return False
    except OSError as error:
        raise _SourceError(error) from None
    source.urgent = False
    return True

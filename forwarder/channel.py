"""Send and receive messages with their descriptors over one unix SOCK_SEQPACKET connection.

A channel joins the supervisor and one worker. The kernel tells each of them the process at the other end, so
no message names its sender. The end of the channel shows at once that the other process has gone. Messages to
all workers go through ZeroMQ.

Invariants:

- Nothing here blocks. Messages that the kernel does not accept are queued in order, at most ``BACKLOG``. A
  peer that leaves more unread is given up, since a worker without its rings is of no use.
- A descriptor is never leaked: each one that arrives is handed to the caller with a message that is entitled
  to that many (``entitled``), or closed here. Sending never closes the caller's descriptors; the queue holds
  duplicates.
- ``receive`` raises PeerError for a bad message and can be called again at once; only ``ChannelClosedError``
  ends the channel.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from forwarder.errors import LocalError, PeerError
from forwarder.messages import (
    Assign,
    Capture,
    CaptureRing,
    Claim,
    FloodRx,
    Floods,
    FloodTx,
    Fork,
    Handover,
    KeepSession,
    Message,
    Ready,
    RingRx,
    RingTx,
    Update,
)
from forwarder.wire import decode, encode

CHANNEL_BYTES = 64 << 10
"""Longest message on a channel: a ``WantFloods`` with every port is a fifth of it."""

BACKLOG = 4096
"""Messages queued for a peer that does not read: two for each possible port, when all of them start to talk
to one port, and the same again."""

_FIXED = {
    **{Fork: 1, Ready: 2, Assign: 5, Claim: 7},
    **{RingTx: 3, RingRx: 2, FloodTx: 1, FloodRx: 1, Capture: 1, CaptureRing: 1},
}
_INT = struct.calcsize("i")
_UCRED = struct.Struct("iII")
_MOST = 253  # SCM_MAX_FD: Linux passes no more with one message
_ANCILLARY = socket.CMSG_SPACE(_MOST * _INT)
_SIOCOUTQ = 0x5411  # linux/sockios.h
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED})
_RECEIVE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
"""Flags as integers: Python's enum takes a microsecond to join two, and memory in each fork."""
_LATER = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
"""Errors that polling for writability does not show: try again after some time."""


class ChannelClosedError(PeerError):
    """The other end is gone, or does not read; close the channel."""


class Credentials(NamedTuple):
    """The process at the other end of a unix socket, at the moment of its connect."""

    pid: int
    uid: int

    @property
    def are_ours(self) -> bool:
        """Whether it runs as our own user, or as root, which may do anything anyway."""
        return self.uid in (os.geteuid(), 0)


def credentials_of(sock: socket.socket) -> Credentials:
    """Return the kernel's credentials of a connected unix socket's peer (unix(7), SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Credentials(pid, uid)


def entitled(message: Message) -> int:
    """Return how many descriptors come with ``message``."""
    if isinstance(message, Update):
        return len(message.floods)
    if isinstance(message, Handover):
        return message.descriptors
    if isinstance(message, KeepSession):
        return message.session.descriptors()
    return len(message.ports) if isinstance(message, Floods) else _FIXED.get(type(message), 0)


def unblock(sock: socket.socket) -> None:
    """Make a socket non-blocking.

    ``setblocking`` does that by an ioctl that can also make descriptors block, which others share; so a
    worker's cell forbids it.
    """
    fcntl.fcntl(sock, fcntl.F_SETFL, fcntl.fcntl(sock, fcntl.F_GETFL) | os.O_NONBLOCK)


def close_all(descriptors: Sequence[int]) -> None:
    """Close all descriptors, also after a failure."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            continue


class Channel:
    """One end. ``fileno`` is for polling: readable means ``receive``, writable means ``flush``."""

    def __init__(self, sock: socket.socket) -> None:
        """Take a connected socket."""
        unblock(sock)
        self._sock = sock
        self._backlog: deque[tuple[bytes, list[int]]] = deque()
        self._poll_helps = False

    @classmethod
    def connect(cls, path: str, pid: int) -> "Channel":
        """Connect to a process. Raises OSError if it does not listen at ``path``, or cannot accept now."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(path)
            if credentials_of(sock).pid != pid:
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"another process listens on {path}")
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def fileno(self) -> int:
        """Return the descriptor to poll; -1 when closed."""
        return self._sock.fileno()

    def credentials(self) -> Credentials:
        """Return the credentials of the process at the other end."""
        return credentials_of(self._sock)

    @property
    def backlog(self) -> int:
        """The number of queued messages; call ``flush`` when writable, and now and then."""
        return len(self._backlog)

    @property
    def unread(self) -> int:
        """The bytes, as the kernel counts them, that the other end has not read; without ``backlog``."""
        size = bytearray(_INT)
        fcntl.ioctl(self._sock, _SIOCOUTQ, size)
        return int.from_bytes(size, sys.byteorder)

    @property
    def wants_write(self) -> bool:
        """Whether polling for writability shows when ``flush`` can go on."""
        return bool(self._backlog) and self._poll_helps

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send ``message`` with its descriptors, which stay the caller's, or queue it.

        Raises ChannelClosedError if the other end is gone or has not read for too long, LocalError if the
        message and its descriptors do not go together.
        """
        if len(descriptors) != entitled(message):
            kind = type(message).__name__
            raise LocalError(f"a {kind} goes with {entitled(message)} descriptors, not {len(descriptors)}")
        data = encode(message)
        if len(data) > CHANNEL_BYTES:
            raise LocalError(f"a {type(message).__name__} of {len(data)} bytes is over {CHANNEL_BYTES}")
        if not self._backlog and self._try(data, descriptors):
            return
        if len(self._backlog) >= BACKLOG:
            raise ChannelClosedError(f"the other end has left {BACKLOG} messages unread")
        self._backlog.append((data, _duplicate(descriptors)))

    def flush(self) -> None:
        """Send queued messages as far as possible. Raises ChannelClosedError."""
        while self._backlog:
            data, descriptors = self._backlog[0]
            if not self._try(data, descriptors):
                return
            self._backlog.popleft()
            close_all(descriptors)

    def receive(self) -> tuple[Message, tuple[int, ...]] | None:
        """Return the next message and its descriptors, now the caller's; None if there is none now.

        Raises PeerError for a bad message (the next one may be good), ChannelClosedError at the end.
        """
        received = self._receive()
        if received is None:
            return None
        data, ancillary, flags = received
        descriptors = descriptors_in(ancillary)
        try:
            if not data:
                raise ChannelClosedError("the other end has closed the channel")
            if flags & _CUT:
                raise PeerError("a truncated message, or more descriptors than can be taken")
            message = decode(data)
            if len(descriptors) != entitled(message):
                raise PeerError(
                    f"{len(descriptors)} descriptors came with a {type(message).__name__}, "
                    f"not {entitled(message)}"
                )
        except PeerError:
            close_all(descriptors)
            raise
        return message, tuple(descriptors)

    def close(self) -> None:
        """Close this end and drop the queue; the other end reads the sent messages, then the end."""
        self._sock.close()
        while self._backlog:
            close_all(self._backlog.popleft()[1])

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int] | None:
        """Take the next message from the kernel. Raises ChannelClosedError.

        If the other end closed with unread messages, the connection is reset: the kernel reports that once,
        before the messages of that end.
        """
        for last in (False, True):
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(CHANNEL_BYTES, _ANCILLARY, _RECEIVE)
                return data, ancillary, flags
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                if last or error.errno != errno.ECONNRESET:
                    raise ChannelClosedError(f"the channel broke: {error.strerror}") from None
        return None

    def _try(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """Return whether the kernel accepted the message."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
        try:
            self._sock.sendmsg([data], rights if descriptors else [], _SEND)
        except (BlockingIOError, InterruptedError):
            self._poll_helps = True
            return False
        except OSError as error:
            if error.errno in _GONE or self._sock.fileno() < 0:
                raise ChannelClosedError("the other end has closed the channel") from None
            if error.errno not in _LATER:
                raise LocalError(f"cannot send on a channel: {error.strerror}") from None
            self._poll_helps = False
            return False
        return True


def descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message (cmsg(3), SCM_RIGHTS), now the caller's."""
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(data) - len(data) % _INT
            descriptors += struct.unpack(f"{whole // _INT}i", data[:whole])
    return descriptors


def _duplicate(descriptors: Sequence[int]) -> list[int]:
    """Duplicate all or none. Raises ChannelClosedError if descriptors run out."""
    copies: list[int] = []
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))
    except OSError as error:
        close_all(copies)
        raise ChannelClosedError(f"no descriptor left to queue an unread message: {error.strerror}") from None
    return copies

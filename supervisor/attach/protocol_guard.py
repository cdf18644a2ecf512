"""Recognise clients of another protocol at a stream listener, and slow them down.

Theory of operation
-------------------
A VM's first bytes come when its guest sends its first frame, perhaps a minute after the connect, so a
listener cannot wait for them. But a client of another protocol (libvirt's vhostuser at the socket for QEMU's
stream) sends at once. Its first bytes are no length of a frame, so its link ends, and it connects again. Each
time costs a worker. So after one such end the listener is *wary* for ``WARY_S``: it puts a connection on
probation and peeks at its first bytes. If its own protocol begins so, or nothing comes for
``PROBATION_S``, the connection becomes a port like any other. Otherwise it is refused, without a port. From
the third bad end in a row the listener pauses for 1, 2, 4 … ``LONGEST_PAUSE_S`` seconds, and a line says
which protocol it looks like. A client that has hung up already costs nothing and causes no pause.

Example: libvirt connects every 0.1 s. The first connection gets a worker and ends by its length of 16
million. The second is refused on probation, the third as well, with a warning and a pause of 1 s; then 2, 4,
8, 16, 30. A QEMU that connects meanwhile waits in the kernel's queue for the end of the pause.

A VM may speak the right protocol and want what no port has: QEMU with ``queues=2`` connects, hears of one
pair of queues, and connects again, 30 times a second. Such *vain* ends, within ``VAIN_S``, cause the same
pauses.

Pure but for ``Probation``, which watches the connections; times are monotonic seconds.
"""

import select
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from forwarder import _core
from forwarder.loop import Loop

WARY_S = 60.0
VAIN_S = 1.0
"""A VM that was ended before its driver began is older, as a rule: its firmware has run."""
PROBATION_S = 1.0
LONGEST_PAUSE_S = 30.0
TOLERATED = 2
"""Bad ends in a row without a pause: a single typing error needs none."""
PROBATIONERS = 8
PEEK = 16
"""First bytes to peek at."""

_LENGTH = 4
_HEAD = 12
"""Bytes of the head of a vhost-user message."""
_SIGNATURES = (
    (b"GET ", "HTTP"),
    (b"POST", "HTTP; VMs that attach by `POST /connect` use --listen"),
    (b"PUT ", "HTTP"),
    (b"HEAD", "HTTP"),
    (b"OPTI", "HTTP"),
    (b"CONN", "HTTP"),
    (b"PRI ", "HTTP/2"),
    (b"\x16\x03", "TLS"),
    (b"SSH-", "SSH"),
    (b'{"', "QEMU's monitor (QMP)"),
    (b"VMN3", "VPNKit's protocol"),
    (b"VFKT", "vfkit's datagrams; use --listen-vfkit"),
    (b"\xce\xfa\xed\xfe", "VDE"),
    (b"\xfe\xed\xfa\xce", "VDE"),
    (b"\xff\x00\x00\x00\x00\x00\x00\x00", "ZeroMQ"),
)


def is_frame(start: bytes) -> bool:
    """Whether a stream of frames can begin so: with a length of four bytes, big-endian."""
    return _core.MIN_FRAME <= int.from_bytes(start[:_LENGTH], "big") <= _core.MAX_FRAME


def is_vhost_user(start: bytes) -> bool:
    """Whether vhost-user can begin so: a request below 256, version 1 in the flags, the size of its payload.

    All are little-endian.
    """
    return len(start) >= 8 and start[1:4] == b"\0\0\0" and start[4] & 0x3 == 1 and start[5:8] == b"\0\0\0"


class Protocol(NamedTuple):
    """The protocol of a listener's own clients."""

    name: str
    begins: Callable[[bytes], bool]
    enough: int
    """First bytes that ``begins`` needs."""
    bad_ends: tuple[str, ...]
    """How the reason of a port's end begins after another protocol (``ingress.c``, ``workers.vhost``)."""
    vain_ends: tuple[str, ...] = ()
    """The same after the right protocol, if the VM will end its next link in the same way."""

    def is_not_spoken(self, by: str, start: bytes = b"") -> str:
        """Return the sentence about ``by`` (with its verb); ``start``: the first bytes, if they are known."""
        seems = f"; it looks like {looks_like(start)}" if start else ""
        return f"{by} another protocol than {self.name}, again and again{seems}"


_BAD_LENGTH = ("the VM sent a length ",)
PROTOCOLS = {
    "qemu": Protocol("QEMU's stream", is_frame, _LENGTH, _BAD_LENGTH),
    "connect": Protocol("frames behind their length in 16 bits", bool, 1, _BAD_LENGTH),
    "bess": Protocol("messages that are frames", bool, 1, ()),
    "vhost": Protocol(
        "vhost-user",
        is_vhost_user,
        _HEAD,
        ("flags 0x", "the VM's request "),
        ("the VM closed the link before a driver used it",),
    ),
}
"""By transport. ``bool``: everything that comes after a right request, or is a message, can be a frame."""


def looks_like(start: bytes) -> str:
    """Return the protocol that a client seems to speak, by its first bytes."""
    for signature, protocol in _SIGNATURES:
        if start.startswith(signature):
            return protocol
    if is_vhost_user(start):
        return "vhost-user; use --listen-vhost"
    if is_frame(start):
        return "QEMU's stream; use --listen-qemu"
    return f"nothing known, it begins with {start[:8].hex(' ')}"


def _has_hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


class ProtocolGuard:
    """Counts the bad and vain ends at one listener, and decides about pauses."""

    def __init__(self) -> None:
        self._row = 0
        self._last = float("-inf")
        self._resumes = float("-inf")

    def is_wary(self, now: float) -> bool:
        """Whether to put connections on probation."""
        return now - self._last < WARY_S

    def pause_left(self, now: float) -> float:
        """Return how many seconds of the last pause are left, 0 for none."""
        return max(0.0, self._resumes - now)

    def bad(self, now: float) -> float:
        """Note a bad end; return the pause in seconds, 0 for none.

        During a pause only connections from before it end: they do not make the next one longer.
        """
        if self.pause_left(now):
            return 0.0
        self._row = self._row + 1 if self.is_wary(now) else 1
        self._last = now
        excess = self._row - TOLERATED
        pause = min(2.0 ** (excess - 1), LONGEST_PAUSE_S) if excess > 0 else 0.0
        self._resumes = now + pause
        return pause


class _Probationer(NamedTuple):
    sock: socket.socket
    deadline: float


class Probation:
    """Connections of one listener that wait for their first bytes."""

    def __init__(
        self,
        loop: Loop,
        protocol: Protocol,
        admitted: Callable[[socket.socket], None],
        refused: Callable[[bytes], None],
    ) -> None:
        """``admitted`` gets a connection and closes it; ``refused`` gets the first bytes of a refused one."""
        self._protocol = protocol
        self._loop = loop
        self._admitted = admitted
        self._refused = refused
        self._waiting: dict[int, _Probationer] = {}
        """By descriptor, the oldest first."""

    def add(self, sock: socket.socket) -> None:
        """Wait for the first bytes of ``sock``; the oldest connection makes room."""
        if len(self._waiting) >= PROBATIONERS:
            self._forget(next(iter(self._waiting.values()))).close()
        fd = sock.fileno()
        self._waiting[fd] = _Probationer(sock, time.monotonic() + PROBATION_S)
        self._loop.watch(fd, lambda _: self._look(fd))
        self._look(fd)

    def tick(self, now: float) -> None:
        """Admit silent connections: a VM's guest may not have begun to send."""
        for each in [each for each in self._waiting.values() if each.deadline <= now]:
            self._admitted(self._forget(each))

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return next((each.deadline for each in self._waiting.values()), float("inf"))

    def close(self) -> None:
        """Hang up on all."""
        for each in list(self._waiting.values()):
            self._forget(each).close()

    def _look(self, fd: int) -> None:
        each = self._waiting[fd]
        try:
            start = each.sock.recv(PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            start = b""
        if not start:
            self._forget(each).close()
        elif self._protocol.begins(start):
            self._admitted(self._forget(each))
        elif len(start) >= self._protocol.enough:
            waits = not _has_hung_up(each.sock)
            self._forget(each).close()
            if waits:
                self._refused(start)

    def _forget(self, each: _Probationer) -> socket.socket:
        del self._waiting[each.sock.fileno()]
        self._loop.unwatch(each.sock.fileno())
        return each.sock

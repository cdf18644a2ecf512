"""The accept loop of a listening socket: bursts, pauses without descriptors, and a guard for each connection.

Theory of operation
-------------------
An ``Acceptor`` watches a listening socket in a loop and hands each connection, which does not block, to its
``accepted``, which owns it from then on. It takes at most ``BURST`` in one turn, so that a crowd of clients
does not keep the loop from the others.

    ACCEPTING ──no descriptor, or pause()──► PAUSED ──its time is over──► ACCEPTING
        └──── hold() ────► HELD ──resume()──► ACCEPTING

A process without descriptors cannot accept, and the kernel goes on saying that it should, so a loop that
only returned would spin. The acceptor pauses for ``PAUSE_S`` instead; the clients wait in the kernel's queue
and are accepted when descriptors have come back. ``Pauses`` knows the acceptors that pause, so that waiting
costs nothing for all the others, of which there may be a thousand.

``accepted`` may hold or pause the acceptor, which then takes no other connection in this turn. If it raises,
that connection is closed and the failure reported; the listener goes on.

Example: a process with one descriptor left has three clients in the queue. It accepts the first; the second
gets EMFILE, and the acceptor pauses. A second later the first has gone: the other two are accepted.

Single-threaded; the listening socket stays its owner's, who closes it after ``close``.
"""

import errno
import socket
from collections.abc import Callable
from typing import Protocol

from forwarder.loop import READ

BURST = 64
"""Connections accepted before others get their turn."""
PAUSE_S = 1.0
"""Descriptors come back when connections end, which takes about that long."""

_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Watcher(Protocol):
    """What an acceptor needs of a loop; an event READ is the same number in every one of them."""

    failed: Callable[[], None]

    def watch(self, fd: int, callback: Callable[[int], None], events: int) -> None:
        """Call ``callback`` whenever ``fd`` has one of ``events``."""

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``."""


class Pauses:
    """The acceptors of one loop that pause."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._ends: dict[Acceptor, float] = {}

    def begin(self, acceptor: "Acceptor", seconds: float) -> None:
        """Have ``acceptor`` go on in so many seconds."""
        self._ends[acceptor] = self._clock() + seconds

    def cancel(self, acceptor: "Acceptor") -> None:
        """Forget ``acceptor``; one that does not pause is ignored."""
        self._ends.pop(acceptor, None)

    def tick(self, now: float) -> None:
        """Let those go on whose time has come."""
        for acceptor in [each for each, end in self._ends.items() if end <= now]:
            acceptor.resume()

    def deadline(self) -> float | None:
        """When to call ``tick``; None while no acceptor pauses."""
        return min(self._ends.values(), default=None)


class Acceptor:
    """Accepts from one listening socket."""

    def __init__(
        self,
        watcher: Watcher,
        sock: socket.socket,
        accepted: Callable[[socket.socket], None],
        pauses: Pauses,
        starved: Callable[[str], None] | None = None,
    ) -> None:
        """Begin to accept. ``starved`` is told, in words, why the acceptor pauses of its own accord."""
        self._watcher = watcher
        self._sock = sock
        self._accepted = accepted
        self._pauses = pauses
        self._starved = starved
        self._accepting = False
        sock.setblocking(False)
        self.resume()

    def resume(self) -> None:
        """Go on after ``hold`` or a pause; again does nothing."""
        self._pauses.cancel(self)
        if not self._accepting:
            self._accepting = True
            self._watcher.watch(self._sock.fileno(), self._on_readable, READ)

    def hold(self) -> None:
        """Take no connection until ``resume``."""
        self._pauses.cancel(self)
        if self._accepting:
            self._accepting = False
            self._watcher.unwatch(self._sock.fileno())

    def pause(self, seconds: float) -> None:
        """Take no connection for so long."""
        self.hold()
        self._pauses.begin(self, seconds)

    def close(self) -> None:
        """Take no connection any more; call it before the socket is closed."""
        self.hold()

    def _on_readable(self, _: int) -> None:
        for _ in range(BURST):
            if not self._accepting:
                return
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self.pause(PAUSE_S)
                    if self._starved is not None:
                        self._starved(error.strerror or str(error))
                    return
                continue  # the client has gone already (ECONNABORTED), or its network has
            try:
                sock.setblocking(False)
                self._accepted(sock)
            except Exception:
                sock.close()
                self._watcher.failed()

"""Accept connections from a listening socket in a loop; pause when the process has no descriptors left.

Theory of operation
-------------------
An ``Acceptor`` watches a listening socket in a loop and hands each connection, non-blocking, to ``accepted``,
which closes it later. It accepts at most ``BURST`` in one turn, so that a crowd of clients does not keep the
loop from other work. ``Accepting`` is all of it but the accepting itself.

    ACCEPTING ──no descriptor, or pause()──► PAUSED ──its time is over──► ACCEPTING
        └──── hold() ────► HELD ──resume()──► ACCEPTING

A process without descriptors cannot accept, but the kernel goes on reporting the socket as readable, so a
loop would spin. The acceptor pauses for ``PAUSE_S`` instead. The clients wait in the kernel's queue and are
accepted when descriptors are free again. ``Pauses`` keeps only the acceptors that pause, so the others,
perhaps a thousand, cost nothing.

``accepted`` may hold or pause the acceptor, which then accepts no other connection in this turn. If it
raises, the connection is closed and the failure reported; the listener goes on.

Example: a process with one descriptor left has three clients in the queue. It accepts the first; the second
gets EMFILE, and the acceptor pauses. A second later the first has gone: the other two are accepted.

Single-threaded. The owner of the listening socket closes it, after ``close``.
"""

import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from forwarder.loop import READ

BURST = 64
"""Connections accepted in one turn."""
PAUSE_S = 1.0
"""Descriptors become free when connections end, which takes about this long."""

_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Watcher(Protocol):
    """The part of a loop that an acceptor needs; the event READ has the same number in every loop."""

    failed: Callable[[], None]

    def watch(self, fd: int, callback: Callable[[int], None], events: int) -> None:
        """Call ``callback`` whenever ``fd`` has one of ``events``."""

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``."""


class Pauses:
    """The pausing acceptors of one loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._ends: dict[Accepting, float] = {}

    def begin(self, acceptor: "Accepting", seconds: float) -> None:
        """Let ``acceptor`` go on in so many seconds."""
        self._ends[acceptor] = self._clock() + seconds

    def cancel(self, acceptor: "Accepting") -> None:
        """Forget ``acceptor``; does nothing if it does not pause."""
        self._ends.pop(acceptor, None)

    def tick(self, now: float) -> None:
        """Let the acceptors go on whose time has come."""
        for acceptor in [each for each, end in self._ends.items() if end <= now]:
            acceptor.resume()

    def deadline(self) -> float | None:
        """When to call ``tick``; None while no acceptor pauses."""
        return min(self._ends.values(), default=None)


class Accepting(ABC):
    """One listening socket that is accepted from, pauses or is held."""

    def __init__(
        self,
        watcher: Watcher,
        sock: socket.socket,
        pauses: Pauses,
        starved: Callable[[str], None] | None = None,
    ) -> None:
        """Begin to accept. ``starved`` is called with the reason when the acceptor pauses by itself."""
        self._watcher = watcher
        self._sock = sock
        self._pauses = pauses
        self._starved = starved
        self._accepting = False
        sock.setblocking(False)
        self.resume()

    def resume(self) -> None:
        """Go on after ``hold`` or a pause; a second call does nothing."""
        self._pauses.cancel(self)
        if not self._accepting:
            self._accepting = True
            self._watcher.watch(self._sock.fileno(), self._on_readable, READ)

    def hold(self) -> None:
        """Accept no connection until ``resume``."""
        self._pauses.cancel(self)
        if self._accepting:
            self._accepting = False
            self._watcher.unwatch(self._sock.fileno())

    def pause(self, seconds: float) -> None:
        """Accept no connection for so long."""
        self.hold()
        self._pauses.begin(self, seconds)

    def move_to(self, sock: socket.socket) -> None:
        """Accept from another socket from now on; call it before the present one is closed."""
        if self._accepting:
            self._watcher.unwatch(self._sock.fileno())
        self._sock = sock
        sock.setblocking(False)
        if self._accepting:
            self._watcher.watch(sock.fileno(), self._on_readable, READ)

    def close(self) -> None:
        """Stop accepting; call it before the socket is closed."""
        self.hold()

    @abstractmethod
    def _on_readable(self, events: int) -> None:
        """Accept what there is, within bounds."""

    def _starve(self, error: OSError) -> None:
        """Pause for lack of descriptors or memory."""
        self.pause(PAUSE_S)
        if self._starved is not None:
            self._starved(error.strerror or str(error))


class Acceptor(Accepting):
    """Accepts from one listening socket, and hands on each connection."""

    def __init__(
        self,
        watcher: Watcher,
        sock: socket.socket,
        accepted: Callable[[socket.socket], None],
        pauses: Pauses,
        starved: Callable[[str], None] | None = None,
    ) -> None:
        """Begin to accept, as ``Accepting``."""
        self._accepted = accepted
        super().__init__(watcher, sock, pauses, starved)

    def _on_readable(self, events: int) -> None:
        for _ in range(BURST):
            if not self._accepting:
                return
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._starve(error)
                    return
                continue  # the client has gone already (ECONNABORTED), or its network has
            try:
                sock.setblocking(False)
                self._accepted(sock)
            except Exception:
                sock.close()
                self._watcher.failed()

"""The relay's own epoll set: edge-triggered, and itself one descriptor in the loop of the process.

A joined connection is told once when something has become possible, and remembers it; so a connection that
is idle or blocked costs neither a wake-up nor a system call, which level-triggered polling charges for each
change of mind. The price is that every callback has to go on until the kernel says EAGAIN, or ask for
another call by ``soon``: bursts are cut there, so that one busy connection does not keep the others waiting.

Descriptor numbers are used again. An event that was fetched before its descriptor was closed must not reach
whoever got the number next, so whatever was unwatched in a turn gets nothing for the rest of it; a new edge
is reported with the next turn anyway.

A callback that raises is reported and dropped, as in ``forwarder.loop``.
"""

import select
from collections.abc import Callable

from forwarder.loop import print_failure

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
URGENT = select.EPOLLPRI
CLOSING = select.EPOLLRDHUP
FAILED = select.EPOLLERR | select.EPOLLHUP
EDGE = select.EPOLLET

BURST = 256
"""Events fetched in a turn: enough to make the system call cheap, and the rest waits in the kernel."""

ROUNDS = 3
"""Times in a turn that events are fetched: what one call does often has the next for a consequence at once (a
SYN that is written becomes a connection to accept), and a turn of the process costs ten times a look here."""

Callback = Callable[[int], None]


class Poller:
    """Watched descriptors and unfinished work."""

    def __init__(self, failed: Callable[[], None] = print_failure) -> None:
        """``failed`` is called while the exception of a callback is handled; it must not raise."""
        self.failed = failed
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._stale: set[int] = set()
        self._soon: dict[Callback, None] = {}
        self.quiet = True
        """Whether nothing has happened in this turn, as far as it has come: what can wait may be done."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``turn`` has something to do."""
        return self._epoll.fileno()

    @property
    def busy(self) -> bool:
        """Whether there is work that needs no event: call ``turn`` again after a look at everything else."""
        return bool(self._soon)

    def watch(self, fd: int, callback: Callback, events: int) -> None:
        """Call ``callback(events)`` when ``fd`` has one of ``events``; replaces what was asked for before."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``, before it is closed. One that is not watched is ignored."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._stale.add(fd)

    def soon(self, callback: Callback) -> None:
        """Call ``callback(0)`` once in the next turn."""
        self._soon[callback] = None

    def turn(self) -> None:
        """Make the calls that are due, without waiting."""
        unfinished, self._soon = self._soon, {}
        self.quiet = True
        for _ in range(ROUNDS):
            self._stale.clear()
            happened = self._epoll.poll(0, BURST)
            for fd, events in happened:
                callback = self._callbacks.get(fd)
                if callback is not None and fd not in self._stale and not self._call(callback, events):
                    self.unwatch(fd)
            if not happened:
                break
            self.quiet = False
        for callback in unfinished:
            self._call(callback, 0)

    def _call(self, callback: Callback, events: int) -> bool:
        """Call a callback; False if it failed, which is reported."""
        try:
            callback(events)
        except Exception:
            self.failed()
            return False
        return True

    def close(self) -> None:
        """Forget everything."""
        self._callbacks.clear()
        self._soon.clear()
        self._epoll.close()

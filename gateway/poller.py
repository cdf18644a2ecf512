"""An epoll set that is one descriptor in the set that the process sleeps in.

The relay has one for its datagrams and frames, and the parts that answer guests have one. A callback need not
read a socket empty: it is called again in the next turn. ``soon`` asks for a call without an event. Both cut
bursts, so that one busy socket does not delay the others. Connections are not here: the core has them
(``Splices``).

Descriptor numbers are reused. An event that was fetched before its descriptor was closed must not reach the
next user of the number. So a number that was unwatched in a turn gets no events for the rest of it; a new one
is reported with the next turn anyway.

A callback that raises is reported and dropped, as in ``forwarder.loop``.
"""

import select
from collections.abc import Callable

from forwarder.loop import print_failure

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
FAILED = select.EPOLLERR | select.EPOLLHUP

BURST = 256
"""Events fetched by one call: enough to make the system call cheap; the rest waits in the kernel."""

ROUNDS = 3
"""Fetches in one turn. A call often causes the next event at once, and a turn of the process costs ten times
as much as a fetch."""

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
        """Whether this turn has had no events so far, so that delayed work may be done."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``turn`` has something to do."""
        return self._epoll.fileno()

    @property
    def busy(self) -> bool:
        """Whether there is work that needs no event: call ``turn`` again after everything else."""
        return bool(self._soon)

    def watch(self, fd: int, callback: Callback, events: int) -> None:
        """Call ``callback(events)`` when ``fd`` has one of ``events``; replaces an earlier callback."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; call it before closing. Does nothing if ``fd`` is not watched."""
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
        """Call a callback; return False, and report the exception, if it failed."""
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

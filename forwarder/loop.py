"""The one loop of a process without an engine: descriptors to callbacks, and sleep until the next deadline.

The loop knows nothing about its callbacks. A callback must not block, and must tolerate spurious calls:
between the kernel's answer and the call, another callback may have dealt with the descriptor.

A callback that raises does not end the process: ``failed`` is called, which reports the exception that is
being handled, and the descriptor is not watched any more, since it would fail again in every turn. What is
in order to happen (the other end of a channel has gone) is not raised through here.
"""

import selectors
import sys
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Callback = Callable[[int], None]
"""Called with the events (READ, WRITE) that the descriptor has."""


def print_failure() -> None:
    """Write the exception that is being handled to stderr."""
    kind, error, trace = sys.exc_info()
    if kind is not None and error is not None:
        sys.excepthook(kind, error, trace)


class Loop:
    """A set of watched descriptors."""

    def __init__(self, failed: Callable[[], None] = print_failure) -> None:
        """``failed`` is called while the exception of a callback is handled; it must not raise."""
        self.failed = failed
        self._selector = selectors.EpollSelector()

    def watch(self, fd: int, callback: Callback, events: int = READ) -> None:
        """Call ``callback`` whenever ``fd`` has one of ``events``; replaces what was asked for before."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; before it is closed. One that is not watched is ignored."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def turn(self, timeout: float) -> None:
        """Sleep until something happens or ``timeout`` seconds are over, and make the calls that are due."""
        for key, events in self._selector.select(max(timeout, 0.0)):
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:
                try:
                    key.data(events)
                except Exception:
                    self.failed()
                    self._drop(key)

    def _drop(self, key: selectors.SelectorKey) -> None:
        """Forget a callback that failed, unless another one has its place already."""
        current = self._selector.get_map().get(key.fd)
        if current is not None and current.data is key.data:
            self._selector.unregister(key.fd)

    def close(self) -> None:
        """Forget everything."""
        self._selector.close()

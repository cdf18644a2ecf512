"""The event loop of a process without an engine: calls callbacks of descriptors, sleeps until a deadline.

The loop knows nothing about its callbacks. A callback must not block, and must tolerate spurious calls:
between the kernel's answer and the call, another callback may have dealt with the descriptor.

A callback that raises does not end the process: ``failed`` reports the exception, and the descriptor is not
watched any more, since it would fail again in every turn. Normal events (the other end of a channel has gone)
must not be raised through the loop.
"""

import selectors
import sys
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Callback = Callable[[int], None]
"""Called with the events (READ, WRITE) of the descriptor."""


def print_failure() -> None:
    """Write the current exception to stderr."""
    kind, error, trace = sys.exc_info()
    if kind is not None and error is not None:
        sys.excepthook(kind, error, trace)


def failure() -> str:
    """Return the exception that is being handled, and where it came from, without opening a file."""
    _, error, trace = sys.exc_info()
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{error!r} at {' > '.join(places)}"


class Loop:
    """A set of watched descriptors."""

    def __init__(self, failed: Callable[[], None] = print_failure) -> None:
        """``failed`` is called while the exception of a callback is handled; it must not raise."""
        self.failed = failed
        self._selector = selectors.EpollSelector()
        self._sleep: Callable[[float], bool] | None = None

    def fileno(self) -> int:
        """Return the descriptor that is readable when a callback is due."""
        return self._selector.fileno()

    def sleep_in(self, sleep: Callable[[float], bool] | None) -> None:
        """Let ``turn`` sleep in ``sleep(seconds)``, which wakes for events of its own, too; None: in here.

        It returns whether ``fileno`` is readable.
        """
        self._sleep = sleep

    def watch(self, fd: int, callback: Callback, events: int = READ) -> None:
        """Call ``callback`` whenever ``fd`` has one of ``events``; replaces an earlier callback."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; call it before closing. Does nothing if ``fd`` is not watched."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def turn(self, timeout: float) -> None:
        """Sleep until an event, or for ``timeout`` seconds, and make the calls that are due."""
        timeout = max(timeout, 0.0)
        if self._sleep is not None:
            if not self._sleep(timeout):
                return
            timeout = 0.0
        for key, events in self._selector.select(timeout):
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:
                try:
                    key.data(events)
                except Exception:
                    self.failed()
                    self._drop(key)

    def _drop(self, key: selectors.SelectorKey) -> None:
        """Forget a callback that failed, unless it has been replaced already."""
        current = self._selector.get_map().get(key.fd)
        if current is not None and current.data is key.data:
            self._selector.unregister(key.fd)

    def close(self) -> None:
        """Forget everything."""
        self._selector.close()

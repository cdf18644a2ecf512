"""The one loop of a process without an engine: descriptors to callbacks, and sleep until the next deadline.

Nothing in it knows what it waits for. A callback must not block and must take it in good part to be called
in vain: between the kernel's answer and the call, another callback may have dealt with the descriptor.
"""

import selectors
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Callback = Callable[[int], None]
"""Called with the events (READ, WRITE) that the descriptor has."""


class Loop:
    """A set of watched descriptors."""

    def __init__(self) -> None:
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
                key.data(events)

    def close(self) -> None:
        """Forget everything."""
        self._selector.close()

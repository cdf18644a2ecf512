"""A channel that a loop looks after: whatever the kernel does not take at once is sent as soon as it does.

A channel queues what its peer is too busy to read, and does not know when to go on. Who forgets to ask it to
goes on for good with a queue that only grows. So both are one here: whoever may send without receiving uses
this, and there is no call to forget. Where polling does not tell when the kernel takes more (too many
descriptors under way), the next thing to receive is the occasion to try.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from forwarder.channel import Channel, ChannelClosedError
from forwarder.loop import READ, WRITE, Loop
from forwarder.messages import Message


class LoopChannel(Channel):
    """One end of a channel, in a loop once ``watch`` was called."""

    _loop: Loop | None = None
    _events = 0

    def watch(self, loop: Loop, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever there may be something to receive, the end included."""
        self._loop = loop
        self._ready = ready
        self._update()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send ``message``, or queue it, like ``Channel``."""
        super().send(message, descriptors)
        self._update()

    def close(self) -> None:
        """Leave the loop and close this end."""
        if self._loop is not None:
            self._loop.unwatch(self.fileno())
            self._loop = None
        super().close()

    def _event(self, events: int) -> None:
        if self.backlog:
            with suppress(ChannelClosedError):  # who receives finds out, after what was sent before the end
                self.flush()
            self._update()
        if events & READ:
            self._ready()

    def _update(self) -> None:
        events = READ | WRITE if self.wants_write else READ
        if self._loop is not None and events != self._events:
            self._events = events
            self._loop.watch(self.fileno(), self._event, events)

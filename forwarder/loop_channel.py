"""A channel in a loop: the loop sends queued messages as soon as the kernel accepts them.

A plain channel queues messages for a busy peer, but does not know when to go on; if its user forgets
``flush``, the queue only grows. This class flushes by itself, so a user that may send without receiving has
no call to forget. If polling does not show when the kernel accepts more (too many descriptors under way), the
next received message is the occasion to try.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from forwarder.channel import Channel, ChannelClosedError
from forwarder.loop import READ, WRITE, Loop
from forwarder.messages import Message


class LoopChannel(Channel):
    """One end of a channel; ``watch`` puts it into a loop."""

    _loop: Loop | None = None
    _events = 0
    _held = False

    def watch(self, loop: Loop, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever there may be a message, or the end, to receive."""
        self._loop = loop
        self._ready = ready
        self._update()

    def hold(self, *, held: bool) -> None:
        """Leave what arrives in the kernel, or read on: the other end waits when the kernel has enough."""
        self._held = held
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
            with suppress(ChannelClosedError):  # the receiver will see the end, after the messages before it
                self.flush()
            self._update()
        if events & READ:
            self._ready()

    def _update(self) -> None:
        events = (0 if self._held else READ) | (WRITE if self.wants_write else 0)
        if self._loop is not None and events != self._events:
            self._events = events
            if events:
                self._loop.watch(self.fileno(), self._event, events)
            else:
                self._loop.unwatch(self.fileno())

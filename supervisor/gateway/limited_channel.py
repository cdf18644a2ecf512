"""The supervisor's end of a gateway's channel, which is read only as fast as the gateway may speak.

A guest may have taken the gateway over. It may say ``BURST`` messages at one moment and ``RATE`` in a second;
what is more stays in the kernel, which holds the gateway back, and the loop is the others'.
"""

import time
from collections.abc import Iterator

from forwarder.loop_channel import LoopChannel
from forwarder.messages import Message
from supervisor.base.allowance import Allowance
from supervisor.base.logs import Throttle

BURST = 8192
RATE = 2000.0
"""Messages at one moment, and in a second: two for each forward there can be, and as many for their ends."""


class LimitedChannel(LoopChannel):
    """The channel; call ``tick`` when ``deadline`` says so."""

    _allowance: Allowance | None = None
    _throttle = Throttle()

    def heard(self) -> Iterator[tuple[Message, tuple[int, ...]]]:
        """Yield messages with their descriptors, those that may be taken now. Raises like ``receive``."""
        allowance = self._allowance = self._allowance or Allowance(BURST, RATE, time.monotonic())
        count = allowance.take(time.monotonic())
        if not count:
            self._throttle.warning("held", "the gateway says too much and is held back")
            self.hold(held=True)
        for _ in range(count):
            received = self.receive() if self.fileno() >= 0 else None
            if received is None:
                return
            allowance.spend()
            yield received

    def last_words(self) -> Iterator[tuple[Message, tuple[int, ...]]]:
        """Yield what its process said before it ended; no socket buffer holds more than ``BURST``."""
        for _ in range(BURST):
            received = self.receive() if self.fileno() >= 0 else None
            if received is None:
                return
            yield received

    def tick(self, now: float) -> None:
        """Read on after a pause."""
        if now >= self.deadline():
            self.hold(held=False)

    def deadline(self) -> float:
        """When to call ``tick``, in monotonic seconds."""
        resume_at = self._allowance.resume_at if self._allowance is not None else 0.0
        return resume_at or float("inf")

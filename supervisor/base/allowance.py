"""Limit the messages of one of our processes in a second: others wait in the kernel, and their sender too.

A token bucket. The reader of a channel asks how many messages to take and spends a token for each. Without
tokens it leaves the channel unread until ``resume_at``. The reader loses no message.

    Allowance(burst=4096, rate=1000): 4,096 messages at once, then 64 every 64 ms.
"""

AT_ONCE = 64
"""Messages taken in one go, so that one channel cannot keep the loop from the others."""


class Allowance:
    """What one process has saved up for. ``now`` is monotonic time in seconds."""

    __slots__ = ("_burst", "_rate", "_saved", "_saved_at", "resume_at")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        """``burst``: messages at one moment; ``rate``: messages a second."""
        self._burst = float(burst)
        self._rate = rate
        self._saved = self._burst
        self._saved_at = now
        self.resume_at = 0.0
        """When to read again; 0.0: it is read."""

    def take(self, now: float) -> int:
        """Return how many messages to take now; 0: none before ``resume_at``."""
        self._saved = min(self._burst, self._saved + (now - self._saved_at) * self._rate)
        self._saved_at = now
        if self._saved >= 1.0:
            self.resume_at = 0.0
            return min(AT_ONCE, int(self._saved))
        self.resume_at = now + AT_ONCE / self._rate
        return 0

    def spend(self) -> None:
        """Note that a message was taken."""
        self._saved -= 1.0

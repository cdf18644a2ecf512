"""How many workers to start: pure policy, told what happens and asked what to do.

A VM that connects must not wait for an interpreter to start (some 100 ms), so a few workers wait warm and a
VM takes one. SPARES is two because VMs usually come one at a time, and when they come in a crowd no small
number helps; what helps then is that only ``STARTING`` interpreters start at the same time, each of them
quick, instead of a hundred that all finish last.

An interpreter that starts takes a core for as long, and a VM that has just got its worker needs them all:
every other worker hears of it now. So while another spare waits, the next one is started ``REFILL_S`` later.

Failing to start is usually something lasting (an extension that does not load, no memory), so failures in a
row are spread: each doubles the pause before the next attempt.
"""

import os

SPARES = 2
STARTING = max(2, os.cpu_count() or 1)
REFILL_S = 0.1
READY_S = 20.0
"""A worker that has not said Ready by then is given up; a loaded machine needs a second."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class PoolPolicy:
    """Counts of workers that have no port yet."""

    def __init__(self) -> None:
        self.starting = 0
        self.idle = 0
        self._failures = 0
        self._not_before = 0.0
        self._refill_at = 0.0

    def to_start(self, waiting: int, now: float) -> int:
        """Return how many to start now, for ``waiting`` ports that need one."""
        if now < self._not_before or (now < self._refill_at and self._can_wait(waiting)):
            return 0
        missing = waiting + SPARES - self.idle - self.starting
        limit = 1 if self._failures else STARTING
        return max(0, min(missing, limit - self.starting))

    def started(self) -> None:
        """Note that one has been started."""
        self.starting += 1

    def ready(self) -> None:
        """Note that one that was starting is idle now."""
        self.starting -= 1
        self.idle += 1
        self._failures = 0

    def taken(self, now: float) -> None:
        """Note that an idle one has got a port."""
        self.idle -= 1
        self._refill_at = now + REFILL_S

    def failed(self, now: float) -> None:
        """Note that one that was starting never will be ready."""
        self.starting -= 1
        self._pause(now)

    def lost(self, now: float) -> None:
        """Note that an idle one has ended."""
        self.idle -= 1
        self._pause(now)

    def _pause(self, now: float) -> None:
        self._failures += 1
        self._not_before = now + min(FIRST_PAUSE_S * 2.0 ** (self._failures - 1), LONGEST_PAUSE_S)

    def deadline(self, waiting: int) -> float:
        """When ``to_start`` will say something else though nothing has happened."""
        if waiting + SPARES <= self.idle + self.starting:
            return float("inf")
        refill_at = self._refill_at if self._can_wait(waiting) else 0.0
        return max(refill_at, self._not_before) if refill_at or self._failures else float("inf")

    def _can_wait(self, waiting: int) -> bool:
        return self.idle > waiting

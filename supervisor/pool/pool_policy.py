"""Decide how many spare workers to start, and when: a pure policy.

A VM that connects must not wait for a process to start (some 6 ms), so a few spare workers wait for it.
SPARES is two, because VMs usually come one at a time, and no small number helps with a crowd. For a crowd,
``STARTING`` workers start at the same time: few enough that the first ones are ready soon, and so many that
they come together and the others hear of them together (``join_rollout``).

A starting worker takes a core, just when a VM has got its worker and all other workers hear of it. So while
another spare waits, the next one is started ``REFILL_S`` later.

A failure to start usually has a lasting cause (an extension that does not load, no memory), so each failure
in a row doubles the pause before the next attempt.
"""

SPARES = 2
STARTING = 16
REFILL_S = 0.1
READY_S = 20.0
"""A worker without Ready after this time is given up; a loaded machine needs a second."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class PoolPolicy:
    """Numbers of workers that have no port yet."""

    def __init__(self) -> None:
        self.starting = 0
        self.idle = 0
        self._failures = 0
        self._not_before = 0.0
        self._refill_at = 0.0

    def to_start(self, waiting: int, now: float) -> int:
        """Return how many workers to start now; ``waiting`` ports need one."""
        if now < self._not_before or (now < self._refill_at and self._can_wait(waiting)):
            return 0
        missing = waiting + SPARES - self.idle - self.starting
        limit = 1 if self._failures else STARTING
        return max(0, min(missing, limit - self.starting))

    def started(self) -> None:
        """Note that a worker has been started."""
        self.starting += 1

    def ready(self) -> None:
        """Note that a starting worker is idle now."""
        self.starting -= 1
        self.idle += 1
        self._failures = 0

    def taken(self, now: float) -> None:
        """Note that an idle worker has got a port."""
        self.idle -= 1
        self._refill_at = now + REFILL_S

    def dropped(self) -> None:
        """Note that an idle worker is not to be used."""
        self.idle -= 1

    def failed(self, now: float) -> None:
        """Note that a starting worker has failed."""
        self.starting -= 1
        self._pause(now)

    def lost(self, now: float) -> None:
        """Note that an idle worker has ended."""
        self.idle -= 1
        self._pause(now)

    def _pause(self, now: float) -> None:
        self._failures += 1
        self._not_before = now + min(FIRST_PAUSE_S * 2.0 ** (self._failures - 1), LONGEST_PAUSE_S)

    def deadline(self, waiting: int) -> float:
        """When the result of ``to_start`` may change without an event."""
        if waiting + SPARES <= self.idle + self.starting:
            return float("inf")
        refill_at = self._refill_at if self._can_wait(waiting) else 0.0
        return max(refill_at, self._not_before) if refill_at or self._failures else float("inf")

    def _can_wait(self, waiting: int) -> bool:
        return self.idle > waiting

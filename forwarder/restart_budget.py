"""Restart budget: how often, and how soon, a port gets another worker, or the gateway another process.

A worker that dies once is replaced almost at once, since its VM is waiting. One that dies again and
again is harming the machine, and the wait before the next one doubles. When more than ``attempts``
were lost within ``window_s``, the port is *parked*: it gets no worker any more, and the operator is
told. Losses are forgotten as they leave the window, so a port that dies once a week never parks.
Pure: times are monotonic seconds that the caller passes in.
"""

from collections import deque
from typing import NamedTuple


class Budget(NamedTuple):
    """How many restarts a port may have, and how they are spread."""

    attempts: int = 5
    """Restarts within the window; the next loss parks the port."""
    window_s: float = 60.0
    first_s: float = 0.05
    """Wait before the first restart: a tenth of what a guest notices as a hiccup of its link."""
    longest_s: float = 5.0
    """Doubling ends here: with five attempts the waits are 0.05, 0.1, 0.2, 0.4 and 0.8 s."""


class Losses:
    """The workers that one port has lost lately; never remembers more than the budget's attempts."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._times: deque[float] = deque(maxlen=max(budget.attempts, 1))

    def lost(self, now: float) -> float | None:
        """Count a loss; return when the next worker may start, or None if the port is to be parked."""
        budget = self._budget
        while self._times and self._times[0] <= now - budget.window_s:
            self._times.popleft()
        earlier = len(self._times)
        if earlier >= budget.attempts:
            return None
        self._times.append(now)
        return now + min(budget.first_s * 2.0**earlier, budget.longest_s)

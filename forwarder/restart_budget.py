"""Restart budget: decide how soon, and how often, a port gets a new worker or the gateway a new process.

After one death the next worker starts almost at once, since the VM waits. Repeated deaths harm the machine,
so each wait is twice the last one. When more than ``attempts`` workers were lost within ``window_s``, the
port is *parked*: it gets no worker any more, and the log says so. Losses are forgotten as they leave the
window, so a port that dies once a week never parks. Pure: times are monotonic seconds that the caller passes
in.
"""

from collections import deque
from typing import NamedTuple


class Budget(NamedTuple):
    """The number of restarts of a port, and the waits between them."""

    attempts: int = 5
    """Restarts within the window; the next loss parks the port."""
    window_s: float = 60.0
    first_s: float = 0.05
    """Wait before the first restart, in seconds: one tenth of the delay that a guest notices."""
    longest_s: float = 5.0
    """Doubling ends here: with five attempts the waits are 0.05, 0.1, 0.2, 0.4 and 0.8 s."""


class Losses:
    """The recent losses of one port; never more than the budget's attempts."""

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

"""How much of something shared each port may use in a second, as a pure table (GCRA, ITU-T I.371).

An owner may do ``burst`` things at one moment and ``rate`` in a second. What is a little too early waits for
its time, up to ``queue`` things; what is more than that is refused before any work is done for it. So a guest
that is busy is slowed down, and a guest that floods spends its own share.

    Rates(rate=1000, burst=500, queue=64): of 600 questions at one moment 500 are for now, 64 for the next
    64 ms, and 36 are refused.

For each owner there is one number, the time at which all that it has done would be due at the plain rate.
Owners are ports; a port that has left is forgotten, so there are never more of them than ports. ``now`` is
monotonic time in seconds.
"""

import math
from collections.abc import Hashable

_ROUNDING = 1e-6


class Rates:
    """The times of all owners."""

    def __init__(self, rate: float, burst: int, queue: int) -> None:
        self._each = 1 / rate
        self._early = burst / rate
        self._late = queue / rate
        self._times: dict[Hashable, float] = {}

    def take(self, owner: Hashable, now: float) -> float | None:
        """Return in how many seconds ``owner`` may do one more thing, mostly 0.0; None: it is refused."""
        time = self._next(owner, now)
        if time - now > self._late + self._each / 2:
            return None
        self._times[owner] = time
        wait = time - now
        return wait if wait > self._each * _ROUNDING else 0.0

    def is_spent(self, owner: Hashable, now: float) -> bool:
        """Whether ``take`` would refuse ``owner`` one more thing."""
        return self._next(owner, now) - now > self._late + self._each / 2

    def forget(self, owner: Hashable) -> None:
        """Forget an owner that has left."""
        self._times.pop(owner, None)

    def _next(self, owner: Hashable, now: float) -> float:
        return max(self._times.get(owner, -math.inf), now - self._early) + self._each

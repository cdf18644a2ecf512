"""Limit the rate at which each port uses something shared: a pure table (GCRA, ITU-T I.371).

An owner may do ``rate`` things a second, and ``burst`` of them at one moment. Up to ``queue`` further things
wait for their time. The rest is refused before any work is done for it. So a busy guest is slowed down, and a
flooding guest spends only its own share.

    Rates(rate=1000, burst=500, queue=64): of 600 questions at one moment 500 are allowed now, 64 in the next
    64 ms, and 36 are refused.

The table holds one number for each owner: the time at which everything it has done would be due at the plain
rate. Owners are ports. A port that has left is forgotten, so the table is never larger than the number of
ports. ``now`` is monotonic time in seconds.
"""

import math
from collections.abc import Hashable

_ROUNDING = 1e-6


class Rates:
    """The table of all owners."""

    def __init__(self, rate: float, burst: int, queue: int) -> None:
        self._each = 1 / rate
        self._early = burst / rate
        self._late = queue / rate
        self._times: dict[Hashable, float] = {}

    def take(self, owner: Hashable, now: float) -> float | None:
        """Count one more thing of ``owner``; return its delay in seconds, or None if it is refused."""
        time = self._next(owner, now)
        if time - now > self._late + self._each / 2:
            return None
        self._times[owner] = time
        wait = time - now
        return wait if wait > self._each * _ROUNDING else 0.0

    def is_spent(self, owner: Hashable, now: float) -> bool:
        """Whether ``take`` would refuse one more thing of ``owner``."""
        return self._next(owner, now) - now > self._late + self._each / 2

    def forget(self, owner: Hashable) -> None:
        """Forget an owner that has left."""
        self._times.pop(owner, None)

    def _next(self, owner: Hashable, now: float) -> float:
        return max(self._times.get(owner, -math.inf), now - self._early) + self._each

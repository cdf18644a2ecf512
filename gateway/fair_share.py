"""Divide a bounded resource fairly among its owners: each may take a share of what is still free.

A fixed bound for each owner would be too low for one busy guest, or too high for ten greedy ones. Here an
owner may hold up to ``GREED`` times the number that is free (dynamic thresholds of Choudhury and Hahne, made
for packet buffers). A single owner gets eight ninths of all. Several greedy owners still leave room for the
next one. Nothing is taken back from an owner. A pure table without clock or sockets.
"""

from collections import Counter
from collections.abc import Hashable

GREED = 8


class Shares:
    """How many of the ``most`` units each owner holds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._counts: Counter[Hashable] = Counter()

    def take(self, owner: Hashable, count: int = 1) -> bool:
        """Give ``owner`` the number it asks for if that is within its share; return whether it was."""
        if self._counts.get(owner, 0) >= GREED * (self.most - self.taken - count + 1):
            return False
        self._counts[owner] += count
        self.taken += count
        return True

    def give_back(self, owner: Hashable, count: int = 1) -> None:
        """Take units back from ``owner``."""
        assert self._counts[owner] >= count
        self._counts[owner] -= count
        self.taken -= count
        if not self._counts[owner]:
            del self._counts[owner]

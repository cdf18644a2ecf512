"""How many of something bounded one owner may have, as a pure table: a share of what is left.

A fixed bound for each owner is either too low for the one busy guest or too high for ten greedy ones. Here
an owner may have up to ``GREED`` times as many as are still free (dynamic thresholds of Choudhury and Hahne,
made for packet buffers): alone it gets eight ninths of all, and whatever some owners do, the next one finds
room. Nothing that was given is taken away again.
"""

from collections import Counter
from collections.abc import Hashable

GREED = 8


class Shares:
    """Who has how many of ``most``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._counts: Counter[Hashable] = Counter()

    def take(self, owner: Hashable, count: int = 1) -> bool:
        """Give ``owner`` as many more as it asks for if that is fair, and say whether it was."""
        if self._counts.get(owner, 0) >= GREED * (self.most - self.taken - count + 1):
            return False
        self._counts[owner] += count
        self.taken += count
        return True

    def give_back(self, owner: Hashable, count: int = 1) -> None:
        """Take back what ``owner`` had."""
        assert self._counts[owner] >= count
        self._counts[owner] -= count
        self.taken -= count
        if not self._counts[owner]:
            del self._counts[owner]

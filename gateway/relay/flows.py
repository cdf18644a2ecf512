"""The flows of UDP and ICMP echo, and when each ends: a pure table.

No datagram says that it is the last one, so a flow ends by silence: after ``FRESH_S`` without any answer
(most are a single question that was lost or not answered), after ``SETTLED_S`` once an answer has come. RFC
4787 asks for two minutes at least.

``flow_context`` decides how many flows there may be. The table chooses the flow to give up: the longest
unused one of an owner (a port, or a forward), or of the owner with most flows. Both are found without a
search, since a search at each datagram would slow all guests: owners are in buckets by their number of flows,
and one flow more or less moves an owner by one bucket.

``now`` is monotonic time in seconds, and never goes back.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

FRESH_S = 30.0
SETTLED_S = 180.0

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Queues(Generic[Key]):
    """Flows by state, each from the longest unused to the last used: key to time of last use."""

    __slots__ = ("fresh", "settled")

    def __init__(self) -> None:
        self.fresh: OrderedDict[Key, float] = OrderedDict()
        self.settled: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.settled)

    def oldest(self) -> Key:
        """Return the flow to give up first: unanswered ones come before answered ones."""
        return next(iter(self.fresh or self.settled))

    def used(self, key: Key, now: float) -> None:
        """Note that a flow was used."""
        queue = self.settled if key in self.settled else self.fresh
        queue[key] = now
        queue.move_to_end(key)

    def when(self, key: Key) -> float:
        """Return when a flow was used."""
        return self.settled[key] if key in self.settled else self.fresh[key]

    def settle(self, key: Key, now: float) -> None:
        """Note that a flow was answered."""
        self.fresh.pop(key, None)
        self.settled[key] = now
        self.settled.move_to_end(key)

    def remove(self, key: Key) -> None:
        """Forget a flow."""
        (self.fresh if key in self.fresh else self.settled).pop(key)


class _Sizes:
    """Owners by their number of flows."""

    def __init__(self) -> None:
        self._buckets: list[dict[Hashable, None]] = [{}]

    def change(self, owner: Hashable, before: int, after: int) -> None:
        """Note that ``owner`` has one flow more or less."""
        self._buckets[before].pop(owner, None)
        if after == len(self._buckets):
            self._buckets.append({})
        if after:
            self._buckets[after][owner] = None
        if len(self._buckets) > 1 and not self._buckets[-1]:
            self._buckets.pop()

    def fullest(self) -> Hashable:
        """Return an owner with most flows. Raises StopIteration if there is no owner."""
        return next(iter(self._buckets[-1]))


class Flows(Generic[Key, Value]):
    """The table. It returns flows that it gives up; the caller closes them."""

    def __init__(self) -> None:
        self._values: dict[Key, tuple[Hashable, Value]] = {}
        self._owners: dict[Hashable, _Queues[Key]] = {}
        self._all: _Queues[Key] = _Queues()
        self._sizes = _Sizes()

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._values))

    def sent(self, key: Key, now: float) -> Value | None:
        """Return the flow of a datagram on its way out, and note its use; None if there is no such flow."""
        entry = self._values.get(key)
        if entry is None:
            return None
        self._owners[entry[0]].used(key, now)
        self._all.used(key, now)
        return entry[1]

    def value(self, key: Key) -> Value:
        """Return a flow. Raises KeyError if it is not there."""
        return self._values[key][1]

    def catch_up(self, key: Key, used: float, now: float) -> bool:
        """Note a later use of a flow; return False if the table knew it already."""
        owner, _ = self._values[key]
        if used <= self._all.when(key):
            return False
        self._owners[owner].used(key, now)
        self._all.used(key, now)
        return True

    def answered(self, key: Key, now: float) -> None:
        """Note that an answer came; does nothing if the flow has ended."""
        entry = self._values.get(key)
        if entry is not None:
            self._owners[entry[0]].settle(key, now)
            self._all.settle(key, now)

    def add(self, key: Key, owner: Hashable, value: Value, now: float) -> None:
        """Add a new flow; ``key`` must be new."""
        assert key not in self._values
        self._values[key] = (owner, value)
        mine = self._owners.setdefault(owner, _Queues())
        mine.used(key, now)
        self._all.used(key, now)
        self._sizes.change(owner, len(mine) - 1, len(mine))

    def remove(self, key: Key) -> tuple[Hashable, Value]:
        """Forget a flow, and return it with its owner. Raises KeyError if it is not there."""
        owner, value = self._values.pop(key)
        mine = self._owners[owner]
        mine.remove(key)
        self._all.remove(key)
        self._sizes.change(owner, len(mine) + 1, len(mine))
        if not len(mine):
            del self._owners[owner]
        return owner, value

    def next_to_go(self, owner: Hashable) -> Key | None:
        """Return the flow to give up for one of ``owner``: its own oldest, or else the fullest owner's."""
        if owner not in self._owners:
            if not self._values:
                return None
            owner = self._sizes.fullest()
        return self._owners[owner].oldest()

    def due(self, now: float) -> list[Key]:
        """Return the flows that have been silent for too long."""
        return [*_before(self._all.fresh, now - FRESH_S), *_before(self._all.settled, now - SETTLED_S)]

    def of(self, owner: Hashable) -> list[Key]:
        """Return all flows of ``owner``."""
        mine = self._owners.get(owner)
        return [] if mine is None else [*mine.fresh, *mine.settled]

    def deadline(self) -> float | None:
        """Return when the first flow is due; None while the table is empty."""
        ends = [
            next(iter(queue.values())) + silence
            for queue, silence in ((self._all.fresh, FRESH_S), (self._all.settled, SETTLED_S))
            if queue
        ]
        return min(ends, default=None)


def _before(queue: "OrderedDict[Key, float]", limit: float) -> Iterator[Key]:
    for key, used in queue.items():
        if used > limit:
            return
        yield key

"""Flows without connections (UDP, ICMP echo) as a pure table: who keeps a socket, and for how long.

A datagram does not say that it is the last one, so a flow ends by silence: after ``FRESH_S`` while nothing
came back (most are one question that was lost or is not answered), after ``SETTLED_S`` once something did.
RFC 4787 asks for two minutes at least.

Bounds: ``most`` flows in all, and ``most_each`` for one owner (a guest, or a forward). Whoever is at its
bound loses the flow that it has not used for longest; where the table itself is full, the owner with most
flows loses one. So a guest that scans the Internet only ever pushes out flows of its own.

``now`` is monotonic time in seconds, and never goes back.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

FRESH_S = 30.0
SETTLED_S = 180.0

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Owner(Generic[Key]):
    """One owner's flows, by state, each from the longest unused to the last used: key to time of last use."""

    __slots__ = ("fresh", "settled")

    def __init__(self) -> None:
        self.fresh: OrderedDict[Key, float] = OrderedDict()
        self.settled: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.settled)

    def oldest(self) -> Key:
        """Return the flow to give up first: one that never had an answer before one that had."""
        return next(iter(self.fresh or self.settled))


class Flows(Generic[Key, Value]):
    """The table. What is given up is returned, and is the caller's to close."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._values: dict[Key, tuple[Hashable, Value]] = {}
        self._owners: dict[Hashable, _Owner[Key]] = {}
        self._deadline: float | None = None

    def __len__(self) -> int:
        return len(self._values)

    def count(self, first: object) -> int:
        """Return how many flows have a key that begins with ``first``."""
        return sum(1 for key in self._values if isinstance(key, tuple) and key[0] is first)

    def __iter__(self) -> Iterator[Value]:
        return iter([value for _, value in self._values.values()])

    def sent(self, key: Key, now: float) -> Value | None:
        """Return the flow of a datagram on its way out, and note its use; None if there is no such flow."""
        entry = self._values.get(key)
        if entry is None:
            return None
        owner = self._owners[entry[0]]
        queue = owner.settled if key in owner.settled else owner.fresh
        queue[key] = now
        queue.move_to_end(key)
        return entry[1]

    def answered(self, key: Key, now: float) -> None:
        """Note that something came back. A flow that is gone is ignored."""
        entry = self._values.get(key)
        if entry is not None:
            owner = self._owners[entry[0]]
            owner.fresh.pop(key, None)
            owner.settled[key] = now
            owner.settled.move_to_end(key)

    def add(self, key: Key, owner: Hashable, value: Value, now: float) -> list[Value]:
        """Enter a new flow, and return those that had to go for it. ``key`` must not be there."""
        assert key not in self._values
        gone = []
        mine = self._owners.get(owner)
        if mine is not None and len(mine) >= self._most_each:
            gone.append(self.remove(mine.oldest()))
        elif len(self._values) >= self._most:
            gone.append(self.remove(max(self._owners.values(), key=len).oldest()))
        self._values[key] = (owner, value)
        self._owners.setdefault(owner, _Owner()).fresh[key] = now
        self._deadline = now + FRESH_S if self._deadline is None else min(self._deadline, now + FRESH_S)
        return gone

    def remove(self, key: Key) -> Value:
        """Forget a flow, and return it. Raises KeyError if it is not there."""
        name, value = self._values.pop(key)
        owner = self._owners[name]
        (owner.fresh if key in owner.fresh else owner.settled).pop(key)
        if not len(owner):
            del self._owners[name]
        return value

    def expire(self, now: float) -> list[Value]:
        """Forget the flows that have been silent for too long, and return them."""
        due = [
            key
            for owner in self._owners.values()
            for queue, silence in ((owner.fresh, FRESH_S), (owner.settled, SETTLED_S))
            for key in _before(queue, now - silence)
        ]
        gone = [self.remove(key) for key in due]
        self._deadline = self._next_end()
        return gone

    def remove_owner(self, owner: Hashable) -> list[Value]:
        """Forget all flows of ``owner``, and return them."""
        mine = self._owners.get(owner)
        return [self.remove(key) for key in [*mine.fresh, *mine.settled]] if mine is not None else []

    def deadline(self) -> float | None:
        """Return when to call ``expire``; None while the table is empty.

        It may be too early, never too late: use only moves the end of a flow away, so that it is looked for
        when one was due and not at every datagram.
        """
        return self._deadline if self._values else None

    def _next_end(self) -> float | None:
        ends = [
            next(iter(queue.values())) + silence
            for owner in self._owners.values()
            for queue, silence in ((owner.fresh, FRESH_S), (owner.settled, SETTLED_S))
            if queue
        ]
        return min(ends, default=None)


def _before(queue: "OrderedDict[Key, float]", limit: float) -> Iterator[Key]:
    for key, used in queue.items():
        if used > limit:
            return
        yield key

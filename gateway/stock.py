"""Keep a stock of sockets of the namespace, so that a connection need not wait for one.

Only the process inside can make them. One request for each needs two messages and wakes two processes, which
costs more than the rest of a connection. So the stock asks for ``BATCH`` at once, when the first socket of a
kind is needed and again when half of them are used. A request waits while the stock is empty, at most
``MOST_WAITING`` of a kind; if the process has no socket to give, each of them gets None.

    Example: the first ``take("tcp4", deliver)`` asks for 64 sockets; they come, and one is delivered. The
    next 31 are delivered at once, and the next one asks for 32 more.
"""

import socket
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from forwarder.channel import close_all

BATCH = 64
"""Sockets of one request: more than the connections during two messages; a message holds 253."""

MOST_KEPT = BATCH + BATCH // 2
"""Sockets of a kind that are kept at most: asked for when half a batch is left."""

MOST_WAITING = 4096
"""Most waiting requests of a kind: as many as the kernel keeps for a listener."""

Deliver = Callable[[socket.socket | None], None]


class _Kind:
    """The sockets of one kind, and the requests that wait for one."""

    __slots__ = ("asked", "ready", "waiting")

    def __init__(self) -> None:
        self.ready: list[int] = []
        self.asked = 0
        self.waiting: deque[Deliver] = deque()


class Stock:
    """The stock; it owns its sockets until it delivers them."""

    def __init__(self, ask: Callable[[str, int], None]) -> None:
        """``ask(kind, count)`` requests sockets; then ``came`` must be called, even without a socket."""
        self._ask = ask
        self._kinds: defaultdict[str, _Kind] = defaultdict(_Kind)

    def take(self, kind: str, deliver: Deliver) -> None:
        """Deliver a socket, now or later, or None if there is none."""
        known = self._kinds[kind]
        if known.ready:
            number = known.ready.pop()
            self._refill(kind, known)
            deliver(socket.socket(fileno=number))
        elif len(known.waiting) < MOST_WAITING:
            known.waiting.append(deliver)
            self._refill(kind, known)
        else:
            deliver(None)

    def came(self, kind: str, asked: int, descriptors: Sequence[int]) -> None:
        """Take the sockets of a request; fewer than ``asked`` if there are no more now."""
        known = self._kinds[kind]
        known.asked -= asked
        known.ready += descriptors
        while known.waiting and known.ready:
            known.waiting.popleft()(socket.socket(fileno=known.ready.pop()))
        if len(descriptors) < asked:
            while known.waiting:
                known.waiting.popleft()(None)
        elif known.waiting:
            self._refill(kind, known)
        close_all(known.ready[MOST_KEPT:])  # of requests that were given None meanwhile
        del known.ready[MOST_KEPT:]

    def close(self) -> None:
        """Close all sockets, and give None to the waiting requests."""
        kinds, self._kinds = self._kinds, defaultdict(_Kind)
        for known in kinds.values():
            close_all(known.ready)
            for deliver in known.waiting:
                deliver(None)

    def _refill(self, kind: str, known: _Kind) -> None:
        if len(known.ready) + known.asked - len(known.waiting) <= BATCH // 2:
            known.asked += BATCH
            self._ask(kind, BATCH)

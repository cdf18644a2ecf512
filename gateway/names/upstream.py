"""Ask the host's resolvers, as the C library would (resolver(3)); each question is independent.

Theory of operation
-------------------
A question goes to the first resolver. The next one is asked at once if a resolver refuses, fails
or is unreachable, or after ``STEP_S`` without an answer. After the last one the first is asked again,
``ROUNDS`` times in all. Every resolver that was asked may still answer; the first answer without a failure
counts. If all fail, the last failure is passed on. Nothing is remembered between questions, so a slow name
delays no other.

    resolvers .9 (silent) and .1: at 0 s ask .9; at 1.5 s ask .1, which answers. The next begins with .9.

Each question has its own connected socket to each resolver that it asks (``resolver_sockets``). So the kernel
picks a random port and accepts datagrams of that resolver only; the identifier is random as well (RFC 5452).
A question that came by TCP is asked by TCP, and every question if the host's options say so (``use-vc``). A
truncated answer is passed on as it is, and the client asks again by TCP.

**Shares.** A port may have ``MOST_EACH`` questions under way, all ports together ``MOST``. A new question
beyond that ends the oldest one of the same port, or of the port with most questions. So unanswered questions
make room for new ones.
"""

import heapq
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from functools import partial

from forwarder.socket_address import Servers, SocketAddress
from gateway.names import message
from gateway.names.message import NOT_IMPLEMENTED, REFUSED, SERVER_FAILURE, Question
from gateway.names.resolver_sockets import DatagramSocket, ResolverSocket, StreamSocket
from gateway.poller import Poller

STEP_S = 1.5
"""Three resolvers are asked before a client with a time-out of five seconds asks again."""

ROUNDS = 2
END_S = 10.0
"""Most clients have given up by then."""

MOST = 1024
MOST_EACH = 128
FAILURES = frozenset({SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED})
"""Response codes after which the C library asks the next resolver."""

Give = Callable[[bytes | None], None]
"""Called with the answer, with the question's identifier; None if there is no answer."""


class _Asked:
    """One question, until it has its answer."""

    __slots__ = (
        "end",
        "failure",
        "give",
        "ident",
        "open",
        "owner",
        "question",
        "servers",
        "sockets",
        "tries",
        "wire",
    )

    def __init__(self, question: Question, data: bytes, owner: Hashable, give: Give) -> None:
        self.question = question
        self.owner = owner
        self.give = give
        self.ident = int.from_bytes(os.urandom(2), "big")
        self.wire = message.renamed(data, self.ident)
        self.servers: tuple[SocketAddress, ...] = ()
        self.end = 0.0
        self.open: Callable[[SocketAddress, bytes], ResolverSocket] = DatagramSocket
        self.tries = 0
        self.sockets: dict[int, ResolverSocket] = {}
        """By the number of the resolver."""
        self.failure: bytes | None = None


class Upstream:
    """All questions under way."""

    def __init__(
        self,
        poller: Poller,
        servers: Callable[[], Servers],
        counters: "Counter[str]",
        clock: Callable[[], float],
    ) -> None:
        """``servers`` returns the present resolvers, best first."""
        self._poller = poller
        self._servers = servers
        self._counters = counters
        self._clock = clock
        self._by_owner: dict[Hashable, OrderedDict[_Asked, None]] = {}
        self._count = 0
        self._pushed: deque[_Asked] = deque()
        """Questions that others have pushed out; ``tick`` tells their askers, who may ask anew."""
        self._due: list[tuple[float, int, _Asked]] = []
        self._number = 0

    def __len__(self) -> int:
        return self._count

    def ask(self, question: Question, data: bytes, owner: Hashable, give: Give, *, stream: bool) -> None:
        """Ask ``data``, which is ``question`` as it came; by TCP if ``stream`` or the servers want it."""
        self._make_room(owner)
        asked = _Asked(question, data, owner, give)
        asked.servers, by_tcp = self._servers()
        asked.end = self._clock() + END_S
        asked.open = StreamSocket if stream or by_tcp else DatagramSocket
        self._by_owner.setdefault(owner, OrderedDict())[asked] = None
        self._count += 1
        self._next(asked)

    def tick(self, now: float) -> None:
        """Ask the next resolver for questions whose time has come; end those that were pushed out."""
        for _ in range(len(self._pushed)):
            self._pushed.popleft().give(None)
        while self._due and self._due[0][0] <= now:
            _, _, asked = heapq.heappop(self._due)
            if not self._is_under_way(asked):
                continue
            if now >= asked.end:
                self._finish(asked, asked.failure or message.answer(asked.question, SERVER_FAILURE))
                self._counters["names_unanswered"] += 1
            else:
                self._next(asked)

    def deadline(self) -> float | None:
        """When to call ``tick``; None while nothing is asked."""
        if self._pushed:
            return 0.0
        while self._due and not self._is_under_way(self._due[0][2]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def forget(self, owner: Hashable) -> None:
        """End all questions of an owner that has left; it asks no more."""
        for asked in list(self._by_owner.get(owner, ())):
            self._end(asked)

    def close(self) -> None:
        """End all questions."""
        for owner in list(self._by_owner):
            self.forget(owner)

    def _make_room(self, owner: Hashable) -> None:
        mine = self._by_owner.get(owner, ())
        if len(mine) < MOST_EACH and self._count < MOST:
            return
        fullest = (
            owner
            if len(mine) >= MOST_EACH
            else max(self._by_owner, key=lambda each: len(self._by_owner[each]))
        )
        self._counters["names_pushed_out"] += 1
        oldest = next(iter(self._by_owner[fullest]))
        self._end(oldest)
        self._pushed.append(oldest)

    def _is_under_way(self, asked: _Asked) -> bool:
        return asked in self._by_owner.get(asked.owner, ())

    def _next(self, asked: _Asked) -> None:
        """Ask the next reachable resolver; if there is none, wait for those that were asked.

        A resolver to which there is no way is not tried twice at one moment.
        """
        servers = len(asked.servers)
        for _ in range(min(servers, ROUNDS * servers - asked.tries)):
            number = asked.tries % len(asked.servers)
            asked.tries += 1
            if self._ask_one(asked, number):
                self._wait(asked, self._clock() + STEP_S)
                return
        if asked.sockets:
            self._wait(asked, asked.end)
        else:
            self._counters["names_failed" if asked.failure else "names_unanswered"] += 1
            self._finish(asked, asked.failure or message.answer(asked.question, SERVER_FAILURE))

    def _ask_one(self, asked: _Asked, number: int) -> bool:
        at = asked.sockets.get(number)
        try:
            if at is None:
                at = asked.sockets[number] = asked.open(asked.servers[number], asked.wire)
                self._watch(asked, number, at)
            at.send()
        except OSError:
            self._drop(asked, number)
            return False
        return True

    def _watch(self, asked: _Asked, number: int, at: ResolverSocket) -> None:
        self._poller.watch(at.sock.fileno(), partial(self._ready, asked, number), at.events)

    def _ready(self, asked: _Asked, number: int, _: int) -> None:
        at = asked.sockets[number]
        try:
            data = at.ready()
        except OSError:  # refused, or unreachable
            self._failed(asked, number)
            return
        if isinstance(at, StreamSocket):
            self._watch(asked, number, at)
        if data is None or not message.answers(data, asked.ident, asked.question):
            return
        answer = message.renamed(data, asked.question.ident)
        if message.code(data) in FAILURES:
            asked.failure = answer
            self._failed(asked, number)
        else:
            self._counters["names_resolved"] += 1
            self._finish(asked, answer)

    def _failed(self, asked: _Asked, number: int) -> None:
        """Go on, if this was the newest resolver asked, or the last one that could answer."""
        self._drop(asked, number)
        if (asked.tries - 1) % len(asked.servers) == number or not asked.sockets:
            self._next(asked)

    def _wait(self, asked: _Asked, due: float) -> None:
        self._number += 1
        heapq.heappush(self._due, (min(due, asked.end), self._number, asked))

    def _drop(self, asked: _Asked, number: int) -> None:
        at = asked.sockets.pop(number, None)
        if at is not None:
            self._poller.unwatch(at.sock.fileno())
            at.sock.close()

    def _finish(self, asked: _Asked, answer: bytes) -> None:
        self._end(asked)
        asked.give(answer)

    def _end(self, asked: _Asked) -> None:
        for number in list(asked.sockets):
            self._drop(asked, number)
        mine = self._by_owner[asked.owner]
        del mine[asked]
        self._count -= 1
        if not mine:
            del self._by_owner[asked.owner]

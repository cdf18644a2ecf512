"""Ask the host's resolvers, as the C library would (resolver(3)); each question is independent.

Theory of operation
-------------------
``Asked`` sends a question to the first resolver. The next one is asked at once if a resolver refuses, fails
or is unreachable, or after ``STEP_S`` without an answer. After the last one the first is asked again,
``ROUNDS`` times in all. Every resolver that was asked may still answer; the first answer without a failure
counts. If all fail, the last failure is passed on. Nothing is remembered between questions, so a slow name
delays no other.

    resolvers .9 (silent) and .1: at 0 s ask .9; at 1.5 s ask .1, which answers. The next begins with .9.

Each question has its own connected socket to each resolver that it asks. So the kernel picks a random port
and accepts datagrams of that resolver only; the identifier is random as well (RFC 5452). A question that came
by TCP is asked by TCP, and every question if the host's options say so (``use-vc``). A truncated answer is
passed on as it is, and the client asks again by TCP.

**Shares.** A port may have ``MOST_EACH`` questions under way, all ports together ``MOST``. A new question
beyond that ends the oldest one of the same port, or of the port with most questions. So unanswered questions
make room for new ones.
"""

import heapq
import os
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from forwarder.socket_address import Servers, SocketAddress
from gateway.names import message
from gateway.names.message import NOT_IMPLEMENTED, REFUSED, SERVER_FAILURE, Question
from gateway.relay.poller import READ, WRITE, Poller

STEP_S = 1.5
"""Three resolvers are asked before a client with a time-out of five seconds asks again."""

ROUNDS = 2
END_S = 10.0
"""Most clients have given up by then."""

MOST = 1024
MOST_EACH = 128
LONGEST = 65535
FAILURES = frozenset({SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED})
"""Response codes after which the C library asks the next resolver."""

Give = Callable[[bytes | None], None]
"""Called with the answer, with the question's identifier; None if there is no answer."""


class _Way(Protocol):
    """One question at one resolver."""

    sock: socket.socket

    def send(self) -> None:
        """Ask, perhaps again. Raises OSError."""

    def ready(self) -> bytes | None:
        """Return a message that has come, or None. Raises OSError: there will be none."""


class _Datagrams:
    def __init__(self, server: SocketAddress, data: bytes) -> None:
        self._data = data
        self.sock = _socket(server, socket.SOCK_DGRAM)
        try:
            self.sock.connect(server)
        except OSError:
            self.sock.close()
            raise

    def send(self) -> None:
        self.sock.send(self._data)

    def ready(self) -> bytes | None:
        try:
            return self.sock.recv(LONGEST)
        except BlockingIOError:
            return None


class _Stream:
    def __init__(self, server: SocketAddress, data: bytes) -> None:
        self._out = len(data).to_bytes(2, "big") + data
        self._in = b""
        self.sock = _socket(server, socket.SOCK_STREAM)
        try:
            self.sock.connect(server)
        except BlockingIOError:
            return
        except OSError:
            self.sock.close()
            raise

    def send(self) -> None:
        """Send the bytes that the kernel has not taken yet; at first the socket is not connected."""
        try:
            self._out = self._out[self.sock.send(self._out) :] if self._out else b""
        except BlockingIOError:
            return

    def ready(self) -> bytes | None:
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "no connection")
        self.send()
        try:
            more = self.sock.recv(LONGEST + 2)
        except BlockingIOError:
            return None
        if not more:
            raise ConnectionResetError
        self._in += more
        length = int.from_bytes(self._in[:2], "big")
        return self._in[2 : 2 + length] if 2 + length <= len(self._in) else None

    @property
    def events(self) -> int:
        return READ | WRITE if self._out else READ


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
        "tries",
        "ways",
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
        self.open: Callable[[SocketAddress, bytes], _Way] = _Datagrams
        self.tries = 0
        self.ways: dict[int, _Way] = {}
        """Sockets by the number of the resolver."""
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
        asked.open = _Stream if stream or by_tcp else _Datagrams
        self._by_owner.setdefault(owner, OrderedDict())[asked] = None
        self._count += 1
        self._next(asked)

    def tick(self, now: float) -> None:
        """Ask the next resolver for questions whose time has come."""
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
        while self._due and not self._is_under_way(self._due[0][2]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def forget(self, owner: Hashable) -> None:
        """End all questions of an owner that has left."""
        for asked in list(self._by_owner.get(owner, ())):
            self._finish(asked, None)

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
        self._finish(next(iter(self._by_owner[fullest])), None)

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
        if asked.ways:
            self._wait(asked, asked.end)
        else:
            self._counters["names_failed" if asked.failure else "names_unanswered"] += 1
            self._finish(asked, asked.failure or message.answer(asked.question, SERVER_FAILURE))

    def _ask_one(self, asked: _Asked, number: int) -> bool:
        way = asked.ways.get(number)
        try:
            if way is None:
                way = asked.open(asked.servers[number], asked.wire)
                asked.ways[number] = way
                self._watch(asked, number, way)
            way.send()
        except OSError:
            self._drop(asked, number)
            return False
        return True

    def _watch(self, asked: _Asked, number: int, way: _Way) -> None:
        events = way.events if isinstance(way, _Stream) else READ
        self._poller.watch(way.sock.fileno(), partial(self._ready, asked, number), events)

    def _ready(self, asked: _Asked, number: int, _: int) -> None:
        way = asked.ways[number]
        try:
            data = way.ready()
        except OSError:  # refused, or unreachable
            self._failed(asked, number)
            return
        if isinstance(way, _Stream):
            self._watch(asked, number, way)
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
        if (asked.tries - 1) % len(asked.servers) == number or not asked.ways:
            self._next(asked)

    def _wait(self, asked: _Asked, due: float) -> None:
        self._number += 1
        heapq.heappush(self._due, (min(due, asked.end), self._number, asked))

    def _drop(self, asked: _Asked, number: int) -> None:
        way = asked.ways.pop(number, None)
        if way is not None:
            self._poller.unwatch(way.sock.fileno())
            way.sock.close()

    def _finish(self, asked: _Asked, answer: bytes | None) -> None:
        for number in list(asked.ways):
            self._drop(asked, number)
        mine = self._by_owner[asked.owner]
        del mine[asked]
        self._count -= 1
        if not mine:
            del self._by_owner[asked.owner]
        asked.give(answer)


def _socket(server: SocketAddress, kind: int) -> socket.socket:
    version = ip_address(server[0]).version
    return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind | socket.SOCK_NONBLOCK)

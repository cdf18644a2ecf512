"""DNS questions of guests by TCP (RFC 7766), with bounds for each port.

A connection may carry many questions, answered in any order. A port has at most ``MOST_EACH`` connections,
all ports together ``MOST``. One more ends the connection that was silent for longest: of the same port, or of
the port with most connections. A connection ends after ``SILENCE_S`` without a complete question or a
delivered answer. A guest may close its half after its last question, and still gets all answers. A connection
is not read while it has ``MOST_QUESTIONS`` under way, while its guest does not read its answers, or while its
port asks more in a second than it may (``Rates``, the same as by UDP).

    a guest opens a thousand connections and says nothing: it has 16 at a time, the others of the port are
    closed, and other guests never meet a bound.
"""

import socket
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from gateway.poller import READ, WRITE, Poller
from gateway.ports import Port
from gateway.rates import Rates

MOST = 256
MOST_EACH = 16
MOST_QUESTIONS = 16
SILENCE_S = 10.0
UNTAKEN_BYTES = 65_537
"""Bytes of unread answers at which a connection is not read: one answer of the longest size."""

REST_S = 0.05
"""Pause of a connection whose port has used up its rate."""

_READ_BYTES = 65_537

Reply = Callable[[bytes], None]
Ask = Callable[[bytes, Port, Reply], None]
"""Called with a message, its port, and a function for the answer, which may never be called."""


class _Connection:
    """One guest's connection."""

    __slots__ = ("closed", "data", "ends", "has_ended", "out", "port", "questions", "rests", "sock", "taking")

    def __init__(self, sock: socket.socket, port: Port) -> None:
        self.sock = sock
        self.port = port
        self.data = b""
        self.out = b""
        self.questions = 0
        self.ends = 0.0
        self.closed = False
        self.has_ended = False
        """Whether the guest will ask nothing more."""
        self.rests = False
        """Whether the connection pauses because its port has asked too much."""
        self.taking = False

    @property
    def is_full(self) -> bool:
        """Whether the connection takes no question now."""
        return self.rests or self.questions >= MOST_QUESTIONS or len(self.out) >= UNTAKEN_BYTES

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of the connection."""
        waits = self.taking or self.rests or self.questions or self.out
        return self.has_ended and not waits


class Streams:
    """All connections of guests."""

    def __init__(
        self,
        poller: Poller,
        ask: Ask,
        rates: Rates,
        counters: "Counter[str]",
        *,
        clock: Callable[[], float],
    ) -> None:
        self._poller = poller
        self._ask = ask
        self._rates = rates
        self._resting: dict[_Connection, float] = {}
        self._counters = counters
        self._clock = clock
        self._all: OrderedDict[_Connection, None] = OrderedDict()
        """The connection to end first is first: all have the same time-out."""
        self._by_port: Counter[Port] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def begin(self, sock: socket.socket, port: Port) -> None:
        """Serve an accepted connection; this object closes it."""
        self._make_room(port)
        sock.setblocking(False)
        connection = _Connection(sock, port)
        self._by_port[port] += 1
        self._all[connection] = None
        self._heard(connection)
        self._poller.watch(sock.fileno(), partial(self._ready, connection), READ)

    def tick(self, now: float) -> None:
        """End connections that are silent too long, and read paused ones again."""
        for connection in [each for each, until in self._resting.items() if until <= now]:
            if self._resting.pop(connection, None) is None:
                continue  # another one's question has ended it
            connection.rests = False
            self._take(connection)
            self._update(connection)
        while self._all and (oldest := next(iter(self._all))).ends <= now:
            self._counters["names_silent"] += 1
            self._end(oldest)

    def deadline(self) -> float | None:
        """When to call ``tick``; None while there is no connection."""
        return min([next(iter(self._all)).ends, *self._resting.values()]) if self._all else None

    def forget(self, port: Port) -> None:
        """End the connections of a port that has left."""
        for connection in [each for each in self._all if each.port == port]:
            self._end(connection)

    def close(self) -> None:
        """End all."""
        for connection in list(self._all):
            self._end(connection)

    def _make_room(self, port: Port) -> None:
        if self._by_port[port] >= MOST_EACH:
            fullest = port
        elif len(self._all) >= MOST:
            fullest = max(self._by_port, key=lambda each: self._by_port[each])
        else:
            return
        self._counters["names_pushed_out"] += 1
        self._end(next(each for each in self._all if each.port == fullest))

    def _heard(self, connection: _Connection) -> None:
        """Note progress."""
        connection.ends = self._clock() + SILENCE_S
        self._all.move_to_end(connection)

    def _ready(self, connection: _Connection, events: int) -> None:
        if events & WRITE:
            self._flush(connection)
        if events & ~WRITE and not connection.closed:
            self._read(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            more = connection.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end(connection)
            return
        if not more and connection.has_ended:  # the guest does not read any more, either
            self._end(connection)
            return
        connection.has_ended = not more
        connection.data += more
        self._take(connection)
        self._update(connection)

    def _take(self, connection: _Connection) -> None:
        """Take complete questions, while more may be under way."""
        if connection.taking:
            return  # the answer came at once
        connection.taking = True
        while not connection.closed and not connection.is_full:
            length = int.from_bytes(connection.data[:2], "big")
            if len(connection.data) < 2 or len(connection.data) < 2 + length:
                break
            if not self._may_ask(connection):
                break
            asked, connection.data = connection.data[2 : 2 + length], connection.data[2 + length :]
            connection.questions += 1
            self._heard(connection)
            self._ask(asked, connection.port, partial(self._answer, connection))
        connection.taking = False

    def _may_ask(self, connection: _Connection) -> bool:
        """Return whether the port may ask one more question now; pause the connection if not."""
        now = self._clock()
        wait = self._rates.take(connection.port, now)
        if wait or wait is None:
            connection.rests = True
            self._resting[connection] = now + (REST_S if wait is None else wait)
        return wait is not None

    def _answer(self, connection: _Connection, data: bytes) -> None:
        if connection.closed:
            return
        connection.questions -= 1
        connection.out += len(data).to_bytes(2, "big") + data if data else b""
        self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        try:
            taken = connection.sock.send(connection.out) if connection.out else 0
        except BlockingIOError:
            taken = 0
        except OSError:
            self._end(connection)
            return
        if taken:
            connection.out = connection.out[taken:]
            self._heard(connection)
        self._take(connection)
        self._update(connection)

    def _update(self, connection: _Connection) -> None:
        if connection.closed:
            return
        if connection.is_over:
            self._end(connection)
            return
        is_read = not (connection.is_full or connection.has_ended)
        events = (READ if is_read else 0) | (WRITE if connection.out else 0)
        self._poller.watch(connection.sock.fileno(), partial(self._ready, connection), events)

    def _end(self, connection: _Connection) -> None:
        connection.closed = True
        self._resting.pop(connection, None)
        del self._all[connection]
        self._by_port[connection.port] -= 1
        if not self._by_port[connection.port]:
            del self._by_port[connection.port]
        self._poller.unwatch(connection.sock.fileno())
        with suppress(OSError):
            connection.sock.close()

"""The DNS server for guests, over UDP and TCP: answers itself or asks the host's resolvers.

A question belongs to the port that it came through. For UDP, its frame says so (``Station``). For TCP, the
first segment of the connection says so; it is heard, too, and its port is remembered until the connection is
accepted.
"""

import socket
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial

from gateway.lan.frames import Datagram, Opening
from gateway.lan.station import Station
from gateway.names import message
from gateway.names.answers import Names
from gateway.names.message import FORMAT_ERROR, INTERNET, NOT_IMPLEMENTED, REFUSED, Question
from gateway.names.streams import Streams
from gateway.names.upstream import Upstream
from gateway.ports import Port

MOST_OPENINGS = 1024
"""Connections in their handshake, at most; each is accepted a round trip later."""

Send = Callable[[bytes], None]


class NameService:
    """The DNS server: all questions of guests."""

    def __init__(
        self, station: Station, names: Names, upstream: Upstream, streams: Streams, counters: "Counter[str]"
    ) -> None:
        self._station = station
        self._names = names
        self._upstream = upstream
        self._streams = streams
        self._counters = counters
        self._openings: OrderedDict[tuple[bytes, int], Port] = OrderedDict()

    def heard(self, datagram: Datagram, port: Port, _: float) -> None:
        """Take a question that came by UDP."""
        most = self._station.most(4 if len(datagram.source) == 4 else 6)
        self._take(datagram.payload, port, partial(self._by_datagram, datagram, most), stream=False)

    def opening(self, opening: Opening, port: Port, _: float) -> None:
        """Note the port of a connection whose handshake begins."""
        key = (opening.source, opening.source_port)
        self._openings[key] = port
        self._openings.move_to_end(key)
        if len(self._openings) > MOST_OPENINGS:
            self._openings.popitem(last=False)

    def accepted(self, sock: socket.socket) -> None:
        """Serve a connection of a guest; close it if its first segment was not heard."""
        try:
            address, source_port = sock.getpeername()[:2]
        except OSError:  # reset before it was accepted
            sock.close()
            return
        key = (socket.inet_pton(sock.family, address), source_port)
        if key not in self._openings:
            self._station.drain()
        port = self._openings.pop(key, None)
        if port is None:
            self._counters["no_port"] += 1
            sock.close()
            return
        self._streams.begin(sock, port)

    def asked_by_stream(self, data: bytes, port: Port, reply: Send) -> None:
        """Take a question that came by TCP."""
        self._take(data, port, lambda answer, _: reply(answer), stream=True)

    def _take(
        self, data: bytes, port: Port, send: Callable[[bytes, Question | None], None], *, stream: bool
    ) -> None:
        question = message.parse(data)
        if question is None:
            self._counters["names_malformed"] += 1
            is_question = len(data) >= message.HEADER.size and not data[2] & 0x80
            send(message.failure(data, FORMAT_ERROR) if is_question else b"", None)
        elif question.operation:
            send(message.failure(data, NOT_IMPLEMENTED), None)
        elif question.klass not in (INTERNET, message.EVERY_CLASS):
            send(message.answer(question, REFUSED), None)
        elif (decision := self._names.decide(question.name, question.kind)) is not None:
            self._counters["names_answered"] += 1
            send(message.answer(question, decision.code, decision.records), question)
        else:
            self._counters["names_asked"] += 1
            give = partial(self._given, question, send)
            self._upstream.ask(question, data, port, give, stream=stream)

    def _given(
        self, question: Question, send: Callable[[bytes, Question | None], None], answer: bytes | None
    ) -> None:
        send(answer or b"", question)

    def _by_datagram(self, datagram: Datagram, most: int, data: bytes, question: Question | None) -> None:
        if not data:
            return
        if question is not None and len(data) > min(most, question.size):
            data = message.cut(data, question)
        self._station.answer(datagram.answer(data))

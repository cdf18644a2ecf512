"""One client of the HTTP API: requests in, answers out, with a time limit for each step.

h11 implements the protocol; this file does the input and output. One request at a time; the connection may be
kept. A request may be answered later: meanwhile its connection is not read, and further bytes wait in the
kernel. A request may take its connection over (``Hijack``): the bytes after it are of another protocol.

A client that waits for ``100 Continue`` gets it at once (RFC 9110 section 10.1.1), or 413 if its body is too
long, which is then not read.

Each phase has a time limit (``LIMIT_S``), since a client that sends half a request, or does not read its
answer, holds one of few places. Beyond the limit it gets an error, if possible, and the connection is closed.
"""

import enum
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socket import socket
from typing import NamedTuple

import h11

from forwarder.channel import credentials_of
from forwarder.future import Future
from forwarder.loop import READ, WRITE, Loop
from gateway.api.carry_over import By

BODY = 1 << 20
"""Longest body: ten times a zone with the most records."""


class Phase(enum.Enum):
    """The phases: a connection waits for this."""

    IDLE = "the next request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "an answer that comes later"
    SENDING = "the client to take its answer"


LIMIT_S = {
    Phase.IDLE: 30.0,
    Phase.HEAD: 5.0,
    Phase.BODY: 30.0,
    Phase.ANSWER: 8.0,
    Phase.SENDING: 30.0,
}
"""Seconds that a phase may take. The slowest answer comes from a supervisor on a machine that swaps: five
seconds. A well-behaved client sends a head in one piece."""


class Answer(NamedTuple):
    """What a request gets."""

    status: int
    body: bytes = b""
    kind: bytes = b"application/json"


class Hijack(NamedTuple):
    """Takes a connection over: ``take`` gets the socket, and the bytes behind the request.

    The socket does not block and is not watched. ``take`` closes it later, and must not raise.
    """

    take: Callable[[socket, bytes], None]


Handler = Callable[[str, str, bytes, By], Answer | Hijack | Future[Answer]]
"""Called with method, target (path and query), body, and who asks; returns the answer."""


class Connection:
    """One client, from ``accept`` until it is closed or handed over."""

    def __init__(
        self, loop: Loop, sock: socket, handler: Handler, over: "Callable[[Connection], None]"
    ) -> None:
        """``over`` is called once, when the connection is closed or handed over."""
        self._loop = loop
        self._sock = sock
        self._handler = handler
        self._over = over
        self._by = _client(sock)
        self._is_over = False
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._out = b""
        self._awaited: Future[Answer] | None = None
        self._answered = 0
        self._enter(Phase.IDLE)
        self.heard_at = time.monotonic()
        """When the client last sent or read something, in monotonic seconds."""
        loop.watch(sock.fileno(), self._ready)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if not self._is_over:
            self._leave()
            self._sock.close()

    def _leave(self) -> None:
        self._is_over = True
        self._loop.unwatch(self._sock.fileno())
        self._over(self)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.due = time.monotonic() + LIMIT_S[phase]

    def tick(self, now: float) -> None:
        """End the connection if its phase takes too long."""
        if now < self.due:
            return
        if self.phase is Phase.ANSWER and self._awaited is not None:
            late = Answer(503, b"there was no answer in time; the log may say why\n", b"text/plain")
            self._on_result(self._awaited, late)
        elif self.phase in (Phase.HEAD, Phase.BODY):
            self._refuse(408, f"the request was not whole within {LIMIT_S[self.phase]:g} s")
        else:
            self.close()

    def _ready(self, events: int) -> None:
        self.heard_at = time.monotonic()
        self._attempt(lambda: self._move(events))

    def _move(self, events: int) -> None:
        if events & WRITE:
            self._send()
        elif events & READ:
            self._http.receive_data(self._sock.recv(65536))

    def _on_result(self, future: Future[Answer], answer: Answer) -> None:
        """Send the answer, unless the connection has ended."""
        if not self._is_over and future is self._awaited:
            self._awaited = None
            self._attempt(lambda: self._finish(answer))

    def _attempt(self, step: Callable[[], None]) -> None:
        """Take a step, then handle bytes that have come already; close on errors."""
        answered = self._answered
        try:
            step()
            while not self._is_over and not self._out and self._awaited is None and self._next_event():
                continue
        except BlockingIOError:
            return
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))
        except OSError:
            self.close()
        except Exception:  # a mistake of ours, which the loop reports
            self._refuse(500, "the gateway failed; the log says how")
            raise
        phase = self._waits_for()
        if phase is not self.phase or self._answered != answered:
            self._enter(phase)

    def _waits_for(self) -> Phase:
        if self._awaited is not None:
            return Phase.ANSWER
        if self._out:
            return Phase.SENDING
        if self._http.their_state is h11.SEND_BODY:
            return Phase.BODY
        return Phase.HEAD if self._http.trailing_data[0] else Phase.IDLE

    def _next_event(self) -> bool:
        """Take the next event; False if there is none now."""
        event = self._http.next_event()
        if isinstance(event, h11.Request):
            self._request, self._body = event, bytearray()
            return self._wants_body(event)
        if isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > BODY:
                self._refuse_body()
                return False
        elif isinstance(event, h11.EndOfMessage):
            self._respond()
        elif isinstance(event, h11.ConnectionClosed):
            self.close()
            return False
        elif event is h11.PAUSED:
            if self._http.our_state is not h11.DONE:
                self.close()
                return False
            self._http.start_next_cycle()
        else:
            return False
        return True

    def _wants_body(self, request: h11.Request) -> bool:
        """Send ``100 Continue`` if the client waits for it; return False if its body is refused."""
        length = next((int(value) for name, value in request.headers if name == b"content-length"), 0)
        if length > BODY:
            self._refuse_body()
            return False
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self._out = self._http.send(go_on) or b""
            self._send()
        return True

    def _respond(self) -> None:
        assert self._request is not None
        method, target = self._request.method.decode(), self._request.target.decode()
        self._answered += 1
        answer = self._handler(method, target, bytes(self._body), self._by)
        if isinstance(answer, Hijack):
            self._leave()
            answer.take(self._sock, self._http.trailing_data[0])
        elif isinstance(answer, Future):
            self._loop.unwatch(self._sock.fileno())
            self._awaited = answer
            answer.add_done_callback(partial(self._on_result, answer))
        else:
            self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        self._write(answer)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    def _refuse_body(self) -> None:
        self._refuse(413, f"a request has at most {BODY} bytes")

    def _refuse(self, status: int, why: str) -> None:
        """Answer a malformed request, and close."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            with suppress(OSError, h11.LocalProtocolError):
                self._write(Answer(status, f"{why}\n".encode(), b"text/plain"))
        self.close()

    def _write(self, answer: Answer) -> None:
        head = self._request is not None and self._request.method == b"HEAD"
        headers = [
            (b"content-type", answer.kind),
            (b"content-length", str(len(answer.body)).encode()),
        ]
        parts = [
            self._http.send(h11.Response(status_code=answer.status, headers=headers)),
            b"" if head else self._http.send(h11.Data(data=answer.body)),
            self._http.send(h11.EndOfMessage()),
        ]
        self._out = b"".join(part for part in parts if part)
        self._send()

    def _send(self) -> None:
        with suppress(BlockingIOError):
            self._out = self._out[self._sock.send(self._out) :]
        self._loop.watch(self._sock.fileno(), self._ready, WRITE if self._out else READ)
        if not self._out and self._http.our_state is h11.MUST_CLOSE:
            self.close()


def _client(sock: socket) -> By:
    """Return the user and the process that connected, from the kernel."""
    peer = credentials_of(sock)
    return {"client": {"uid": peer.uid, "pid": peer.pid}}

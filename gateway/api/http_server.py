"""HTTP/1.1 on a unix socket of the host, in the gateway's loop: what ``services`` answers.

The protocol is h11's, which does no input or output; here are the sockets. The socket is 0600, and its peer
must be of our own user or root. One request at a time on a connection, which may be kept. A request may be
the last of its connection: what is spoken after it is another protocol, and the socket goes to who speaks
that (``Hijack``), without a word of HTTP in answer, as gvproxy has it.

A request may be answered later. Meanwhile its connection is not read, and what its client says waits in the
kernel. What takes longer than ``ANSWER_S`` is answered 503, so that no client waits for good for somebody
who is stuck; what comes after that is for nobody.

Bounds: ``CONNECTIONS`` at once, ``BODY`` bytes of a request, and no answer is begun before the one before it
has been taken by the kernel whole. A socket that was handed over does not count here any more.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import h11

from forwarder.channel import credentials_of
from forwarder.errors import LocalError
from forwarder.future import Later
from forwarder.loop import READ, WRITE, Loop

CONNECTIONS = 64
BODY = 1 << 20
"""More than anything that can be asked for: ten times a zone of as many records as there may be."""

ANSWER_S = 8.0
"""The slowest answer is that of a dnsmasq that starts on a machine that swaps: five seconds."""


class Answer(NamedTuple):
    """What a request gets."""

    status: int
    body: bytes = b""
    kind: bytes = b"application/json"


class Hijack(NamedTuple):
    """An end of HTTP: ``take`` owns the socket from now on, and what the client has sent after its request.

    The socket does not block and nobody watches it. ``take`` must not raise.
    """

    take: Callable[[socket.socket, bytes], None]


Handler = Callable[[str, str, bytes], Answer | Hijack | Later[Answer]]
"""From method, target (path and query) and body."""


class HttpServer:
    """The listener and its connections."""

    def __init__(self, loop: Loop, path: str, handler: Handler) -> None:
        """Listen. Raises LocalError."""
        self._loop = loop
        self._handler = handler
        self._path = path
        self._connections: set[_Connection] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            _bind(self._socket, path)
        except OSError as error:
            self._socket.close()
            raise LocalError(f"services: cannot listen at {path}: {error.strerror}; choose another") from None
        loop.watch(self._socket.fileno(), lambda _: self._accept())

    def tick(self, now: float) -> None:
        """Give up on answers that are due."""
        for connection in list(self._connections):
            connection.tick(now)

    def deadline(self) -> float | None:
        """When to call ``tick``, in monotonic seconds; None while no answer is waited for."""
        return min((each.due for each in self._connections if each.due is not None), default=None)

    def close(self) -> None:
        """Close everything and remove the socket."""
        for connection in list(self._connections):
            connection.close()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        if not credentials_of(sock).are_ours or len(self._connections) >= CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        self._connections.add(_Connection(self._loop, sock, self._handler, self._connections))


class _Connection:
    """One client."""

    def __init__(self, loop: Loop, sock: socket.socket, handler: Handler, others: "set[_Connection]") -> None:
        self._loop = loop
        self._sock = sock
        self._handler = handler
        self._others = others
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = b""
        self._out = b""
        self._awaited: Later[Answer] | None = None
        self._due = 0.0
        loop.watch(sock.fileno(), self._ready)

    def close(self) -> None:
        """Hang up; again does nothing."""
        if self in self._others:
            self._forget()
            self._sock.close()

    def _forget(self) -> None:
        self._others.remove(self)
        self._loop.unwatch(self._sock.fileno())

    @property
    def due(self) -> float | None:
        """When the answer that is waited for comes too late; None: there is none."""
        return None if self._awaited is None else self._due

    def tick(self, now: float) -> None:
        """Give up on an answer that is due."""
        if self._awaited is not None and self._due <= now:
            late = Answer(503, b"there was no answer in time; the log may say why\n", b"text/plain")
            self._settle(self._awaited, late)

    def _ready(self, events: int) -> None:
        self._attempt(lambda: self._move(events))

    def _move(self, events: int) -> None:
        if events & WRITE:
            self._send()
        elif events & READ:
            self._http.receive_data(self._sock.recv(65536))

    def _settle(self, later: Later[Answer], answer: Answer) -> None:
        """Give the answer that is waited for, unless nobody waits for that one any more."""
        if self in self._others and later is self._awaited:
            self._awaited = None
            self._attempt(lambda: self._finish(answer))

    def _attempt(self, step: Callable[[], None]) -> None:
        """Take a step, and then what the client has said already; hang up on errors."""
        try:
            step()
            while self in self._others and not self._out and self._awaited is None and self._take():
                continue
        except BlockingIOError:
            return
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))
        except OSError:
            self.close()

    def _take(self) -> bool:
        """Take the next event; False if there is none now."""
        event = self._http.next_event()
        if isinstance(event, h11.Request):
            self._request, self._body = event, b""
        elif isinstance(event, h11.Data):
            self._body += bytes(event.data)
            if len(self._body) > BODY:
                self._refuse(413, f"a request has at most {BODY} bytes")
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

    def _respond(self) -> None:
        assert self._request is not None
        method, target = self._request.method.decode(), self._request.target.decode()
        answer = self._handler(method, target, self._body)
        if isinstance(answer, Hijack):
            self._forget()
            answer.take(self._sock, self._http.trailing_data[0])
        elif isinstance(answer, Later):
            self._loop.unwatch(self._sock.fileno())
            self._awaited = answer
            self._due = time.monotonic() + ANSWER_S
            answer.then(partial(self._settle, answer))
        else:
            self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        self._write(answer)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    def _refuse(self, status: int, why: str) -> None:
        """Answer what is no request, and hang up."""
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


def _bind(sock: socket.socket, path: str) -> None:
    """Bind with mode 0600 from the first moment, over a socket that nobody listens at. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except FileNotFoundError:
            pass
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)
    sock.listen(CONNECTIONS)

"""The HTTP server of the gateway: bounds, order, and that nobody can hold it up."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forwarder.future import Later
from forwarder.loop import Loop
from gateway.api.http_server import ANSWER_S, BODY, CONNECTIONS, Answer, Hijack, HttpServer
from tests.helpers.gateway_world import descriptors, drain
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import PATIENCE


class Served:
    """A server that returns what it gets. ``/echo`` ends HTTP; answers for ``/later`` are in ``waiting``."""

    def __init__(self, loop: Loop, path: str) -> None:
        self.path = path
        self.loop = loop
        self.waiting: list[Later[Answer]] = []
        self.server = HttpServer(loop, path, self.handle)

    def handle(self, method: str, target: str, body: bytes) -> Answer | Hijack | Later[Answer]:
        if target == "/echo":
            return Hijack(echo)
        if target != "/later":
            return Answer(200, body or target.encode())
        self.waiting.append(Later())
        return self.waiting[-1]

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Turn until ``condition`` holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited for {what}"
            self.loop.turn(0.01)

    def ask(self, sock: socket.socket, target: str) -> None:
        """Ask for ``/later``, and let the server take that."""
        asked = len(self.waiting)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if target == "/later":
            self.until(lambda: len(self.waiting) > asked, "the request to arrive")

    def read(self, sock: socket.socket, until: bytes) -> bytes:
        """Read an answer to its end."""
        sock.setblocking(False)
        data = bytearray()
        self.until(lambda: drain(sock, data) or data.endswith(until), f"{until!r}, there is {data!r}")
        return bytes(data)


def echo(sock: socket.socket, sent: bytes) -> None:
    with sock:
        assert not sock.getblocking()
        sock.send(b"echo " + sent)


@pytest.fixture
def served() -> Iterator[str]:
    """The path of a server in a loop of its own."""
    loop, done = Loop(), threading.Event()
    with short_directory() as directory:
        path = str(directory / "http.sock")
        server = Served(loop, path).server

        def run() -> None:
            while not done.is_set():
                loop.turn(0.01)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield path
        finally:
            done.set()
            thread.join()
            server.close()
            loop.close()
            assert not Path(path).exists()


@pytest.fixture
def slow() -> Iterator[Served]:
    """A server that is turned by the test."""
    with contextlib.closing(Loop()) as loop, short_directory() as directory:
        served = Served(loop, str(directory / "http.sock"))
        with contextlib.closing(served.server):
            yield served


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(path)
    return sock


def read(sock: socket.socket, until: bytes) -> bytes:
    data = b""
    while until not in data and (more := sock.recv(65536)):
        data += more
    return data


def test_requests_in_pieces_and_in_a_row_are_answered_in_order(served: str) -> None:
    assert stat.S_IMODE(Path(served).stat().st_mode) == 0o600
    with connect(served) as sock:
        sock.sendall(b"GET /one HT")
        sock.sendall(b"TP/1.1\r\nHost: x\r\n\r\nGET /two HTTP/1.1\r\nHost: x\r\n\r\n")
        data = read(sock, b"/two")
    assert data.index(b"/one") < data.index(b"/two")


def test_a_head_has_no_body_and_a_close_is_a_close(served: str) -> None:
    with connect(served) as sock:
        sock.sendall(b"HEAD /one HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read(sock, b"\r\n\r\n").endswith(b"\r\n\r\n")
        sock.sendall(b"GET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read(sock, b"nothing").endswith(b"/two")


def test_a_socket_that_is_handed_over_has_what_was_sent_and_is_not_counted(served: str) -> None:
    for _ in range(CONNECTIONS + 1):
        with connect(served) as sock:
            sock.sendall(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\n\r\n\0\1\2")
            assert read(sock, b"\2").endswith(b"/oneecho \0\1\2")
            assert sock.recv(1) == b""


def test_an_answer_may_come_later_and_others_do_not_wait_for_it(slow: Served) -> None:
    with connect(slow.path) as first, connect(slow.path) as second:
        slow.ask(first, "/later")
        slow.ask(first, "/after")
        slow.ask(second, "/other")
        assert slow.read(second, b"/other").startswith(b"HTTP/1.1 200")
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.recv(1)
        slow.waiting[0].settle(Answer(200, b"at last"))
        data = slow.read(first, b"/after")
        assert data.index(b"at last") < data.index(b"/after")


def test_an_answer_that_does_not_come_in_time_is_503_and_one_that_comes_after_is_for_nobody(
    slow: Served,
) -> None:
    with connect(slow.path) as sock:
        slow.ask(sock, "/later")
        due = slow.server.deadline()
        assert due is not None
        assert due <= time.monotonic() + ANSWER_S
        slow.server.tick(due - 0.1)
        slow.server.tick(due)
        assert slow.server.deadline() is None
        assert slow.read(sock, b"say why\n").startswith(b"HTTP/1.1 503")
        slow.ask(sock, "/later")
        slow.waiting[0].settle(Answer(200, b"of the first"))
        slow.waiting[1].settle(Answer(200, b"of the second"))
        assert b"of the first" not in slow.read(sock, b"of the second")


def test_a_client_that_leaves_before_its_answer_costs_nothing(slow: Served) -> None:
    before = descriptors()
    for _ in range(CONNECTIONS):
        with connect(slow.path) as sock:
            slow.ask(sock, "/later")
    for later in slow.waiting:
        later.settle(Answer(200, b"too late"))
    assert descriptors() == before
    assert slow.server.deadline() is None


def test_clients_that_wait_for_an_answer_cost_no_turns(slow: Served) -> None:
    with connect(slow.path) as sock:
        slow.ask(sock, "/later")
        slow.ask(sock, "/after")
        began = time.monotonic()
        slow.loop.turn(0.2)
        assert time.monotonic() - began >= 0.19


def test_a_large_body_comes_back_whole_to_a_client_that_reads_late(served: str) -> None:
    body = b"x" * (BODY - 1) + b"!"
    with connect(served) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BODY + body)
        assert read(sock, b"!").endswith(body)


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (BODY + 10),
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_what_is_no_request_is_refused_and_the_next_one_is_served(served: str, request_: bytes) -> None:
    with connect(served) as sock:
        try:
            sock.sendall(request_)
            assert read(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 4")
        except OSError:
            pass  # hung up before it had read everything
    with connect(served) as sock:
        sock.sendall(b"GET /fine HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"/fine" in read(sock, b"/fine")


def test_idle_clients_are_bounded(served: str) -> None:
    idle = [connect(served) for _ in range(CONNECTIONS)]
    with connect(served) as sock:
        assert sock.recv(1) == b""
    for each in idle:
        each.close()

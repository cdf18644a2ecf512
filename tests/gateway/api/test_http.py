"""The HTTP server of the gateway: bounds, order, and no client can hold it up."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forwarder.acceptor import PAUSE_S
from forwarder.future import Future
from forwarder.loop import Loop
from gateway.api.carry_over import By
from gateway.api.http_connection import BODY, LIMIT_S, Answer, Hijack, Phase
from gateway.api.http_server import CONNECTIONS, HttpServer
from tests.helpers.descriptors import no_more_descriptors, open_descriptors
from tests.helpers.fakes import reraise
from tests.helpers.gateway.world import drain
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import PATIENCE
from tests.helpers.host_listeners import HostListeners


class Served:
    """A server that returns what it gets. ``/echo`` ends HTTP; answers for ``/later`` are in ``waiting``."""

    def __init__(self, loop: Loop, path: str) -> None:
        self.path = path
        self.loop = loop
        self.waiting: list[Future[Answer]] = []
        self.clients: list[By] = []
        """The client of each request."""
        self.server = HttpServer(loop, HostListeners().at_path(path), self.handle)

    def handle(self, method: str, target: str, body: bytes, by: By) -> Answer | Hijack | Future[Answer]:
        self.clients.append(by)
        if target == "/echo":
            return Hijack(echo)
        if target == "/mistake":
            raise RuntimeError("a mistake of ours")
        if target != "/later":
            return Answer(200, body or target.encode())
        self.waiting.append(Future())
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

    def pass_time(self, seconds: float) -> None:
        """Have the server believe that so much time has passed."""
        self.server.tick(time.monotonic() + seconds)

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
    loop, done = Loop(reraise), threading.Event()
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
    with contextlib.closing(Loop(reraise)) as loop, short_directory() as directory:
        served = Served(loop, str(directory / "http.sock"))
        with contextlib.closing(served.server):
            yield served


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
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


def test_a_socket_that_is_handed_over_has_the_sent_bytes_and_is_not_counted(served: str) -> None:
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
        slow.waiting[0].set_result(Answer(200, b"at last"))
        data = slow.read(first, b"/after")
        assert data.index(b"at last") < data.index(b"/after")


def test_a_mistake_of_ours_is_500_and_reported(slow: Served) -> None:
    with connect(slow.path) as sock:
        slow.ask(sock, "/mistake")
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            slow.until(lambda: False, "the report")
        data = read(sock, b"says how\n")
        assert data.startswith(b"HTTP/1.1 500")
        assert not sock.recv(1)


def test_a_missing_answer_is_503_and_a_late_one_is_dropped(
    slow: Served,
) -> None:
    with connect(slow.path) as sock:
        slow.ask(sock, "/later")
        due = slow.server.deadline()
        assert due is not None
        assert due <= time.monotonic() + LIMIT_S[Phase.ANSWER]
        slow.server.tick(due - 0.1)
        assert len(slow.waiting) == 1
        slow.server.tick(due)
        assert slow.read(sock, b"say why\n").startswith(b"HTTP/1.1 503")
        slow.ask(sock, "/later")
        slow.waiting[0].set_result(Answer(200, b"of the first"))
        slow.waiting[1].set_result(Answer(200, b"of the second"))
        assert b"of the first" not in slow.read(sock, b"of the second")


def test_a_client_that_leaves_before_its_answer_costs_nothing(slow: Served) -> None:
    before = open_descriptors()
    for _ in range(CONNECTIONS):
        with connect(slow.path) as sock:
            slow.ask(sock, "/later")
    for future in slow.waiting:
        future.set_result(Answer(200, b"too late"))
    assert open_descriptors() == before
    assert slow.server.deadline() is None


def test_a_request_comes_with_the_user_and_the_process_that_sent_it(slow: Served) -> None:
    with connect(slow.path) as sock:
        slow.ask(sock, "/later")
    assert slow.clients == [{"client": {"uid": os.getuid(), "pid": os.getpid()}}]


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
def test_a_malformed_request_is_refused_and_the_next_one_is_served(served: str, request_: bytes) -> None:
    with connect(served) as sock:
        try:
            sock.sendall(request_)
            assert read(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 4")
        except OSError:
            pass  # hung up before it had read everything
    with connect(served) as sock:
        sock.sendall(b"GET /fine HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"/fine" in read(sock, b"/fine")


def fill(slow: Served) -> list[socket.socket]:
    """Connect as many clients as there may be, one after the other."""
    clients = []
    for count in range(1, CONNECTIONS + 1):
        clients.append(connect(slow.path))
        slow.until(lambda count=count: len(slow.server._connections) == count, "a client to be accepted")  # type: ignore[misc]
    return clients


def is_open(slow: Served, sock: socket.socket) -> bool:
    """Whether a request of this client is still answered."""
    try:
        slow.ask(sock, "/here")
        return slow.read(sock, b"/here").endswith(b"/here")
    except (ConnectionError, BrokenPipeError):
        return False


def test_the_client_that_has_been_silent_for_longest_makes_room(slow: Served) -> None:
    clients = fill(slow)
    assert is_open(slow, clients[0])  # which is not silent any more
    with connect(slow.path) as newcomer:
        assert is_open(slow, newcomer)
        assert clients[1].recv(1) == b""
        assert all(is_open(slow, client) for client in (clients[0], *clients[2:], newcomer))
    for client in clients:
        client.close()


def test_a_client_that_waits_for_us_does_not_make_room(slow: Served) -> None:
    clients = fill(slow)
    for client in clients:
        slow.ask(client, "/later")
    with connect(slow.path) as newcomer:
        newcomer.setblocking(False)
        slow.until(lambda: drain(newcomer, bytearray()), "the newcomer to be refused")
    for future in slow.waiting:
        future.set_result(Answer(200, b"whole"))
    for client in clients:
        assert slow.read(client, b"whole").startswith(b"HTTP/1.1 200")
        client.close()


@pytest.mark.parametrize(
    ("sent", "phase", "told"),
    [
        (b"", Phase.IDLE, b""),
        (b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n", Phase.IDLE, b"/one"),
        (b"GET /one HT", Phase.HEAD, b"5 s\n"),
        (b"G", Phase.HEAD, b"5 s\n"),
        (b"GET /one HTTP/1.1\r\nHost: x\r\n\r\nGET /tw", Phase.HEAD, b"5 s\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", Phase.BODY, b"30 s\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", Phase.BODY, b"30 s\n"),
    ],
)
def test_a_client_that_is_silent_is_hung_up(slow: Served, sent: bytes, phase: Phase, told: bytes) -> None:
    with connect(slow.path) as sock:
        sock.sendall(sent)
        if phase is Phase.IDLE:
            assert slow.read(sock, told).endswith(told)
            told = b""
        slow.until(lambda: {each.phase for each in slow.server._connections} == {phase}, str(phase))
        slow.pass_time(LIMIT_S[phase] - 1)
        assert slow.server._connections
        slow.pass_time(LIMIT_S[phase])
        assert slow.read(sock, told).endswith(told)
        slow.until(lambda: not slow.server._connections, "the client to be hung up")
        assert slow.server.deadline() is None


def test_a_client_that_does_not_take_its_answer_is_hung_up(slow: Served) -> None:
    with connect(slow.path) as sock:
        slow.ask(sock, "/later")
        slow.waiting[0].set_result(Answer(200, bytes(BODY)))
        assert {each.phase for each in slow.server._connections} == {Phase.SENDING}
        slow.pass_time(LIMIT_S[Phase.SENDING])
        assert not slow.server._connections


def test_a_head_that_comes_byte_by_byte_has_no_more_time(slow: Served) -> None:
    with connect(slow.path) as sock:
        sock.sendall(b"G")
        slow.until(lambda: slow.server._connections, "the client")
        slow.until(lambda: [each.phase for each in slow.server._connections] == [Phase.HEAD], "a head")
        due = slow.server.deadline()
        sock.sendall(b"E")
        for _ in range(5):
            slow.loop.turn(0.01)
        assert slow.server.deadline() == due


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_client_that_waits_for_100_continue_gets_it(served: str, method: str) -> None:
    head = f"{method} /one HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with connect(served) as sock:
        for body in (b"one!", b"two!"):  # on a connection that is kept
            sock.sendall(head.encode())
            assert read(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(body)
            assert read(sock, body).startswith(b"HTTP/1.1 200")


def test_a_client_whose_body_is_too_long_is_refused_instead(served: str) -> None:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY + 1}\r\nExpect: 100-continue\r\n\r\n"
    with connect(served) as sock:
        sock.sendall(head.encode())
        assert read(sock, b"bytes\n").startswith(b"HTTP/1.1 413")
        assert sock.recv(1) == b""


def test_a_body_that_was_sent_without_waiting_gets_one_answer(served: str) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with connect(served) as sock:
        sock.sendall(head + b"all!")
        assert read(sock, b"all!").count(b"HTTP/1.1 200") == 1


def test_a_server_without_descriptors_pauses_and_serves_the_waiting_clients(slow: Served) -> None:
    with connect(slow.path) as sock:
        with no_more_descriptors():
            slow.loop.turn(1.0)
            began = time.monotonic()
            slow.loop.turn(0.2)
            assert time.monotonic() - began >= 0.19  # nothing spins
        assert not slow.server._connections
        slow.pass_time(PAUSE_S)
        assert is_open(slow, sock)

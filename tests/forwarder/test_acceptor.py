"""The accept loop: its order, without descriptors, and although one connection fails."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator

import pytest

from forwarder import unix_sockets
from forwarder.acceptor import BURST, PAUSE_S, Acceptor, Pauses
from forwarder.loop import Loop
from tests.helpers.guests.fixtures import short_directory


class Bench:
    """One listener and its clients; time is what the test says."""

    def __init__(self, path: str) -> None:
        self.now = 100.0
        self.failures = 0
        self.starved: list[str] = []
        self.accepted: list[socket.socket] = []
        self.loop = Loop(self._failed)
        self.pauses = Pauses(lambda: self.now)
        self.path = path
        self.sock, self.file = unix_sockets.listen(path)
        self.acceptor = Acceptor(self.loop, self.sock, self.accept, self.pauses, self.starved.append)
        self.clients: list[socket.socket] = []

    def _failed(self) -> None:
        self.failures += 1

    def accept(self, sock: socket.socket) -> None:
        self.accepted.append(sock)

    def connect(self, count: int = 1) -> None:
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.path)
            self.clients.append(sock)

    def sleeps(self) -> bool:
        """Whether nothing that the loop watches is ready, so that it does not spin."""
        return not select.select([self.loop.fileno()], [], [], 0)[0]

    def close(self) -> None:
        self.acceptor.close()
        self.file.remove()
        for sock in (self.sock, *self.accepted, *self.clients):
            sock.close()
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with short_directory() as directory:
        made = Bench(str(directory / "s"))
        yield made
        made.close()


def test_a_crowd_is_accepted_in_bursts_and_never_blocks(bench: Bench) -> None:
    bench.connect(BURST + 3)
    bench.loop.turn(0)
    assert len(bench.accepted) == BURST
    bench.loop.turn(0)
    assert len(bench.accepted) == BURST + 3
    assert not any(sock.getblocking() for sock in bench.accepted)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_or_memory_it_pauses_and_says_so_once(bench: Bench, number: int) -> None:
    class Exhausted:
        def accept(self) -> None:
            raise OSError(number, "none left")

        def fileno(self) -> int:
            return bench.sock.fileno()

    bench.connect(2)
    bench.acceptor._sock = Exhausted()  # type: ignore[assignment]
    for _ in range(3):
        bench.loop.turn(0)
    assert bench.starved == ["none left"]
    assert bench.pauses.deadline() == bench.now + PAUSE_S
    bench.acceptor._sock = bench.sock
    bench.pauses.tick(bench.now + PAUSE_S - 0.01)
    bench.loop.turn(0)
    assert not bench.accepted
    bench.pauses.tick(bench.now + PAUSE_S)
    bench.loop.turn(0)
    assert len(bench.accepted) == 2
    assert bench.pauses.deadline() is None


def test_one_connection_that_fails_is_closed_and_the_next_one_is_accepted(bench: Bench) -> None:
    def fail_first(sock: socket.socket) -> None:
        if not bench.failures:
            raise ValueError("a bug of ours")
        bench.accept(sock)

    bench.acceptor._accepted = fail_first
    bench.connect(2)
    bench.loop.turn(0)
    assert bench.failures == 1
    assert len(bench.accepted) == 1
    assert bench.clients[0].recv(1) == b""
    bench.connect()
    bench.loop.turn(0)
    assert len(bench.accepted) == 2


def test_an_acceptor_can_be_held_in_the_middle_of_a_burst(bench: Bench) -> None:
    def hold(sock: socket.socket) -> None:
        bench.accept(sock)
        bench.acceptor.hold()

    bench.acceptor._accepted = hold
    bench.connect(2)
    bench.loop.turn(0)
    bench.loop.turn(0)
    assert len(bench.accepted) == 1
    bench.acceptor.resume()
    bench.loop.turn(0)
    assert len(bench.accepted) == 2


def test_it_goes_on_with_another_socket(bench: Bench) -> None:
    bench.connect()
    sock, file = unix_sockets.listen(bench.path + "2")
    bench.acceptor.move_to(sock)
    assert bench.sleeps(), "the client of the one before wakes no loop"
    bench.sock.close()
    bench.sock, bench.path = sock, bench.path + "2"
    bench.connect()
    bench.loop.turn(0)
    assert len(bench.accepted) == 1
    file.remove()


@pytest.mark.parametrize("begin", ["hold", "pause"])
def test_another_socket_waits_as_the_one_before_did(bench: Bench, begin: str) -> None:
    bench.acceptor.hold() if begin == "hold" else bench.acceptor.pause(5.0)
    sock, file = unix_sockets.listen(bench.path + "2")
    bench.acceptor.move_to(sock)
    bench.sock.close()
    bench.sock, bench.path = sock, bench.path + "2"
    bench.connect()
    assert bench.sleeps()
    bench.acceptor.resume() if begin == "hold" else bench.pauses.tick(bench.now + 5.0)
    bench.loop.turn(0)
    assert len(bench.accepted) == 1
    file.remove()


def test_pauses_end_in_the_order_of_their_ends_whatever_the_order_of_their_beginnings(bench: Bench) -> None:
    sock, file = unix_sockets.listen(bench.path + "2")
    other = Acceptor(bench.loop, sock, bench.accept, bench.pauses)
    bench.acceptor.pause(8.0)
    other.pause(1.0)
    assert bench.pauses.deadline() == bench.now + 1.0
    bench.pauses.tick(bench.now + 1.0)
    assert bench.pauses.deadline() == bench.now + 8.0
    bench.acceptor.close()
    assert bench.pauses.deadline() is None, "one that is closed does not go on"
    other.close()
    file.remove()
    sock.close()

"""Questions by TCP: one guest's idle, half-sent or unread connections are bounded and end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from gateway.names import streams
from gateway.names.streams import MOST_EACH, MOST_QUESTIONS, SILENCE_S, Reply, Streams
from gateway.poller import Poller
from gateway.ports import Port
from gateway.rates import Rates
from tests.helpers.descriptors import open_descriptors
from tests.helpers.guests.waiting import PATIENCE

GUEST, OTHER = Port(2, 20), Port(3, 30)


class World:
    """The connections of guests; each question is kept until the test answers it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.now = 100.0
        self.poller = Poller()
        self.counters: Counter[str] = Counter()
        self.asked: list[tuple[bytes, Port, Reply]] = []
        self.streams = Streams(
            self.poller,
            lambda *question: self.asked.append(question),
            Rates(100, 60, 2),
            self.counters,
            clock=lambda: self.now,
        )
        self._stack = stack
        stack.callback(self.poller.close)
        stack.callback(self.streams.close)

    def connect(self, port: Port = GUEST) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._stack.callback(theirs.close)
        theirs.setblocking(False)
        self.streams.begin(ours, port)
        return theirs

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            self.poller.turn()

    def read(self, sock: socket.socket, length: int) -> bytes:
        data = bytearray()

        def all_there() -> bool:
            with contextlib.suppress(BlockingIOError):
                data.extend(sock.recv(1 << 20))
            return len(data) >= length

        self.until(all_there)
        return bytes(data)

    def is_closed(self, sock: socket.socket) -> bool:
        self.poller.turn()
        try:
            return not sock.recv(1 << 20)
        except BlockingIOError:
            return False


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(stack)


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def test_questions_are_answered_in_any_order_on_one_connection(world: World) -> None:
    sock = world.connect()
    whole = framed(b"one") + framed(b"two")
    sock.send(whole[:4])
    world.poller.turn()
    assert world.asked == []
    sock.send(whole[4:])
    world.until(lambda: len(world.asked) == 2)
    assert [(data, port) for data, port, _ in world.asked] == [(b"one", GUEST), (b"two", GUEST)]
    world.asked[1][2](b"second")
    world.asked[0][2](b"first")
    assert world.read(sock, 15) == framed(b"second") + framed(b"first")


def test_a_guest_that_has_closed_its_half_gets_all_answers(world: World) -> None:
    sock, silent = world.connect(), world.connect()
    sock.send(framed(b"q") * (MOST_QUESTIONS + 1))
    sock.shutdown(socket.SHUT_WR)
    silent.shutdown(socket.SHUT_WR)
    world.until(lambda: len(world.asked) == MOST_QUESTIONS)
    assert world.is_closed(silent)
    assert not world.is_closed(sock)
    world.asked[0][2](b"a")
    world.until(lambda: len(world.asked) == MOST_QUESTIONS + 1)
    for _, _, reply in world.asked[1:]:
        reply(b"a")
    assert world.read(sock, 3 * (MOST_QUESTIONS + 1)) == framed(b"a") * (MOST_QUESTIONS + 1)
    assert world.is_closed(sock)


def test_a_guest_that_has_closed_both_halves_is_forgotten(world: World) -> None:
    sock = world.connect()
    sock.send(framed(b"q"))
    world.until(lambda: world.asked)
    sock.close()
    world.until(lambda: not len(world.streams))


def test_silent_or_incomplete_connections_end(world: World) -> None:
    before = open_descriptors()
    idle, half = world.connect(), world.connect()
    half.send(b"\0\x20half")
    world.poller.turn()
    world.now += SILENCE_S / 2
    half.send(b"more")
    world.poller.turn()  # which is no progress
    busy = world.connect()
    world.now += SILENCE_S / 2
    world.streams.tick(world.now)
    assert world.is_closed(idle)
    assert world.is_closed(half)
    assert not world.is_closed(busy)
    assert world.counters["names_silent"] == 2
    assert world.streams.deadline() == world.now + SILENCE_S / 2
    for sock in (idle, half, busy):
        sock.close()
    world.until(lambda: len(world.streams) == 0)
    assert world.streams.deadline() is None
    assert open_descriptors() == before


def test_a_guest_with_too_many_loses_its_own_oldest(world: World) -> None:
    other = world.connect(OTHER)
    socks = [world.connect() for _ in range(MOST_EACH + 5)]
    assert len(world.streams) == MOST_EACH + 1
    assert [world.is_closed(sock) for sock in socks] == [True] * 5 + [False] * MOST_EACH
    assert not world.is_closed(other)
    assert world.counters["names_pushed_out"] == 5


def test_when_all_places_are_used_the_port_with_most_connections_loses_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST", 4)
    socks = [world.connect() for _ in range(4)]
    other = world.connect(OTHER)
    assert [world.is_closed(sock) for sock in (*socks, other)] == [True, False, False, False, False]


def test_a_guest_that_takes_no_answers_is_not_read_and_ends(world: World) -> None:
    sock = world.connect()
    sock.setblocking(True)
    sock.settimeout(PATIENCE)
    for _ in range(40):
        sock.send(framed(b"question"))
    world.until(lambda: len(world.asked) == MOST_QUESTIONS)
    world.poller.turn()
    assert len(world.asked) == MOST_QUESTIONS
    for turn in range(40):
        if turn < len(world.asked):
            world.asked[turn][2](bytes(65_000))
            world.poller.turn()
    assert len(world.asked) < 40
    world.now += SILENCE_S
    world.streams.tick(world.now)
    assert len(world.streams) == 0
    for _, _, reply in world.asked:
        reply(b"too late")


def test_a_question_without_an_answer_makes_room_for_the_next(world: World) -> None:
    sock = world.connect()
    sock.send(framed(b"one") * (MOST_QUESTIONS + 1))
    world.until(lambda: len(world.asked) == MOST_QUESTIONS)
    world.asked[0][2](b"")
    sock.send(framed(b"more"))
    world.until(lambda: len(world.asked) >= MOST_QUESTIONS)


def test_the_connections_of_a_port_that_leaves_end(world: World) -> None:
    mine, others = world.connect(), world.connect(OTHER)
    world.streams.forget(GUEST)
    assert world.is_closed(mine)
    assert not world.is_closed(others)
    mine.close()
    others.send(framed(b"q"))
    world.until(lambda: world.asked)


def test_a_guest_that_hangs_up_is_forgotten_and_its_answer_too(world: World) -> None:
    sock = world.connect()
    sock.send(framed(b"q"))
    world.until(lambda: world.asked)
    sock.close()
    world.until(lambda: len(world.streams) == 0)
    world.asked[0][2](b"answer")


def test_a_paused_connection_that_another_ones_question_ends_is_not_read_again(world: World) -> None:
    first, second = world.connect(), world.connect()
    world.streams._ask = lambda _, __, reply: reply(b"")
    first.send(framed(b"q") * 100)
    second.send(framed(b"q"))
    world.until(lambda: len(world.streams._resting) == 2)
    *_, other = world.streams._resting
    other.questions += 1
    world.streams._ask = lambda *_: world.streams._answer(other, b"an answer")
    second.close()
    world.now += 1.0
    world.streams.tick(world.now)
    assert (len(world.streams), other.closed) == (1, True)


def test_a_port_that_asks_too_much_is_read_later_and_loses_nothing(world: World) -> None:
    sock, other = world.connect(), world.connect(OTHER)
    sock.send(framed(b"q") * 300)
    other.send(framed(b"q"))

    def answer_all() -> bool:
        world.poller.turn()
        for _, _, reply in world.asked[answer_all.done :]:  # type: ignore[attr-defined]
            answer_all.done += 1  # type: ignore[attr-defined]
            reply(b"a")
        return len(world.asked) >= 62

    answer_all.done = 0  # type: ignore[attr-defined]
    world.until(answer_all)
    answer_all()
    assert [port for _, port, _ in world.asked].count(GUEST) == 61
    assert [port for _, port, _ in world.asked].count(OTHER) == 1
    deadline = world.streams.deadline()
    assert deadline is not None
    assert deadline <= world.now + 0.1
    while len(world.asked) < 301:
        world.now = max(world.now, world.streams.deadline() or 0)
        world.streams.tick(world.now)
        answer_all()
    assert world.now >= 102.0  # at a hundred a second


def test_a_thousand_questions_that_are_answered_at_once_are_no_deep_recursion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.streams, "_rates", Rates(1e6, 10_000, 0))
    monkeypatch.setattr(world.streams, "_ask", lambda data, port, reply: reply(data))
    sock = world.connect()
    sock.send(framed(b"q") * 3000)
    assert world.read(sock, 9000) == framed(b"q") * 3000

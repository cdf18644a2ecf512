"""Questions to resolvers: in order, the next after a refusal or a silence, for each question anew."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from unittest import mock

import pytest

from forwarder.socket_address import Servers
from gateway.names import message, resolver_sockets, upstream
from gateway.names.streams import MOST_QUESTIONS, Streams
from gateway.names.streams import Reply as Replied
from gateway.names.upstream import END_S, MOST, MOST_EACH, STEP_S, Upstream
from gateway.poller import Poller
from gateway.ports import Port
from gateway.rates import Rates
from tests.helpers.descriptors import open_descriptors
from tests.helpers.gateway.dns_client import Answer, Resolver, answer, query, read
from tests.helpers.guests.waiting import PATIENCE

FOUND = "203.0.113.7"
Reply = Callable[[str, bytes, bool], bytes | None]


def known(name: str, data: bytes, by_tcp: bool) -> bytes | None:
    return answer(data, FOUND)


def silent(name: str, data: bytes, by_tcp: bool) -> bytes | None:
    return None


def refusing(name: str, data: bytes, by_tcp: bool) -> bytes | None:
    return answer(data, code=message.REFUSED)


def failing(name: str, data: bytes, by_tcp: bool) -> bytes | None:
    return answer(data, code=message.SERVER_FAILURE)


class World:
    """An upstream whose time passes when a test says so."""

    def __init__(self, stack: contextlib.ExitStack, *replies: Reply) -> None:
        self.resolvers = [
            stack.enter_context(contextlib.closing(Resolver(reply, f"127.0.0.{5 + number}", 0)))
            for number, reply in enumerate(replies)
        ]
        self.servers = tuple(each.server for each in self.resolvers)
        self.now = 100.0
        self.poller = Poller()
        self.counters: Counter[str] = Counter()
        self.by_tcp = False
        """Whether the host's options say so."""
        self.upstream = Upstream(
            self.poller, lambda: Servers(self.servers, self.by_tcp), self.counters, lambda: self.now
        )
        self.given: dict[str, Answer | None] = {}
        stack.callback(self.poller.close)
        stack.callback(self.upstream.close)

    def ask(self, name: str, owner: Hashable = "guest", *, stream: bool = False) -> None:
        data = query(name, 1, ident=len(self.given) + 7)
        question = message.parse(data)
        assert question is not None

        def give(got: bytes | None) -> None:
            self.given[name] = None if got is None else read(got)
            assert got is None or self.given[name].ident == question.ident  # type: ignore[union-attr]

        self.upstream.ask(question, data, owner, give, stream=stream)

    def wait(self, *names: str) -> list[Answer | None]:
        """Let events happen, but no time pass, until there are answers."""
        end = time.monotonic() + PATIENCE
        while not set(names) <= self.given.keys():
            assert time.monotonic() < end, f"no answer to {names}: {self.counters}"
            self.poller.turn()
        return [self.given[name] for name in names]

    def settle(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            self.poller.turn()

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.upstream.tick(self.now)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def values(answers: list[Answer | None]) -> list[list[str]]:
    return [each.values if each is not None else [] for each in answers]


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("first", [refusing, failing])
def test_the_next_is_asked_at_once_after_a_refusal_and_the_first_again_for_each_question(
    stack: contextlib.ExitStack, first: Reply, stream: bool
) -> None:
    world = World(stack, first, known)
    for name in ("one", "two"):
        world.ask(name, stream=stream)
        assert values(world.wait(name)) == [[FOUND]]
    assert [each.asked for each in world.resolvers] == [["one", "two"]] * 2
    assert len(world.upstream) == 0


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
def test_the_next_resolver_is_asked_if_one_is_closed_or_unreachable(
    stack: contextlib.ExitStack, stream: bool
) -> None:
    world = World(stack, known)
    with socket.socket() as closed:
        closed.bind(("127.0.0.4", 0))
        world.servers = (closed.getsockname()[:2], ("fe80::1", 53), *world.servers)
        world.ask("one", stream=stream)
        assert values(world.wait("one")) == [[FOUND]]


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
def test_resolvers_without_a_way_are_tried_once_and_the_guest_is_told(
    stack: contextlib.ExitStack, stream: bool
) -> None:
    world = World(stack)
    world.servers = (("fe80::1", 53), ("fe80::2", 53))  # no interface is said
    made = stack.enter_context(mock.patch.object(resolver_sockets, "_socket", wraps=resolver_sockets._socket))
    world.ask("one", stream=stream)
    told = world.given["one"]
    assert told is not None
    assert told.code == message.SERVER_FAILURE
    assert made.call_count == len(world.servers)
    assert (len(world.upstream), world.counters["names_unanswered"]) == (0, 1)


@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
def test_a_silent_resolver_is_asked_again_though_the_next_one_has_no_way(
    stack: contextlib.ExitStack, stream: bool
) -> None:
    world = World(stack, silent)
    world.servers = (*world.servers, ("fe80::1", 53))
    world.ask("one", stream=stream)
    world.settle(lambda: world.resolvers[0].asked)
    world.later(STEP_S)
    assert "one" not in world.given
    assert len(world.upstream) == 1


def test_a_silent_resolver_delays_each_question_by_a_step_and_keeps_its_place(
    stack: contextlib.ExitStack,
) -> None:
    world = World(stack, silent, known)
    for name in ("one", "two", "three"):
        world.ask(name)
        world.settle(lambda name=name: name in world.resolvers[0].asked)  # type: ignore[misc]
        assert name not in world.given
        world.later(STEP_S)
        assert values(world.wait(name)) == [[FOUND]]
    assert world.resolvers[0].asked == world.resolvers[1].asked == ["one", "two", "three"]


def test_a_slow_resolver_may_still_answer(stack: contextlib.ExitStack) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as slow:
        slow.bind(("127.0.0.4", 0))
        slow.settimeout(PATIENCE)
        world = World(stack, silent)
        world.servers = (slow.getsockname(), *world.servers)
        world.ask("one")
        data, peer = slow.recvfrom(4096)
        world.later(STEP_S)
        slow.sendto(answer(data, FOUND), peer)
        assert values(world.wait("one")) == [[FOUND]]


def test_all_are_asked_twice_and_then_the_last_failure_is_the_answer(stack: contextlib.ExitStack) -> None:
    world = World(stack, refusing, failing)
    world.ask("one")
    (got,) = world.wait("one")
    assert got is not None
    assert got.code == message.SERVER_FAILURE
    assert [each.asked for each in world.resolvers] == [["one", "one"]] * 2
    quiet = World(stack, silent)
    quiet.ask("two")
    for _ in range(4):
        quiet.later(STEP_S)
    assert "two" not in quiet.given
    quiet.later(END_S)
    (got,) = quiet.wait("two")
    assert got is not None
    assert got.code == message.SERVER_FAILURE
    assert quiet.counters["names_unanswered"] == 1
    assert quiet.upstream.deadline() is None


def test_an_answer_that_is_not_to_the_question_is_not_heard(stack: contextlib.ExitStack) -> None:
    def lying(name: str, data: bytes, by_tcp: bool) -> bytes:
        return answer(query("other", 1, ident=int.from_bytes(data[:2], "big")), "10.0.0.66")

    world = World(stack, lying, known)
    world.ask("one")
    world.settle(lambda: world.resolvers[0].asked)
    world.later(STEP_S)
    assert values(world.wait("one")) == [[FOUND]]


def test_an_answer_that_was_cut_short_is_passed_on_and_asked_for_by_tcp(stack: contextlib.ExitStack) -> None:
    def long(name: str, data: bytes, by_tcp: bool) -> bytes:
        return answer(data, *[f"10.0.0.{n}" for n in range(100)]) if by_tcp else answer(data, truncated=True)

    world = World(stack, long)
    world.ask("one")
    (got,) = world.wait("one")
    assert got is not None
    assert got.truncated
    world.ask("two", stream=True)
    assert len(values(world.wait("two"))[0]) == 100


def test_a_question_by_udp_is_asked_by_tcp_if_the_hosts_options_say_so(stack: contextlib.ExitStack) -> None:
    def by_tcp_only(name: str, data: bytes, by_tcp: bool) -> bytes | None:
        return answer(data, FOUND) if by_tcp else None

    world = World(stack, by_tcp_only)
    world.by_tcp = True
    world.ask("one")
    assert values(world.wait("one")) == [[FOUND]]


def test_a_guest_with_unanswered_questions_pushes_out_its_own(stack: contextlib.ExitStack) -> None:
    def hole(name: str, data: bytes, by_tcp: bool) -> bytes | None:
        return None if name.startswith("hole") else answer(data, FOUND)

    world = World(stack, hole)
    before = open_descriptors()
    for number in range(3 * MOST_EACH):
        world.ask(f"hole{number}", "greedy")
    assert len(world.upstream) == MOST_EACH
    assert open_descriptors() <= before + MOST_EACH
    assert world.counters["names_pushed_out"] == 2 * MOST_EACH
    world.ask("one", "other")
    world.ask("two", "greedy")
    assert values(world.wait("one", "two")) == [[FOUND]] * 2
    world.upstream.forget("greedy")
    assert (len(world.upstream), open_descriptors()) == (0, before)
    assert world.upstream.deadline() == 0.0
    world.later(0.0)
    assert world.given["hole5"] is None, "its asker is told in the next tick"
    assert world.upstream.deadline() is None


def test_a_connection_with_more_questions_than_places_asks_on_and_ends_with_its_port(
    stack: contextlib.ExitStack,
) -> None:
    """Each question that is pushed out makes its connection ask the next one: in a later turn, not within."""
    world, port = World(stack, silent), Port(2, 20)
    asked: list[int] = []

    def ask(data: bytes, owner: Port, reply: Replied) -> None:
        question = message.parse(data)
        assert question is not None
        asked.append(question.ident)
        world.upstream.ask(question, data, owner, lambda got: reply(got or b""), stream=True)

    rates, clock = Rates(10_000, 10_000, 2), lambda: world.now
    connections = Streams(world.poller, ask, rates, world.counters, clock=clock)
    stack.callback(connections.close)
    wire = [query(f"n{number}", 1, ident=number) for number in range(4 * MOST_QUESTIONS)]
    data = b"".join(len(each).to_bytes(2, "big") + each for each in wire)
    for _ in range(MOST_EACH // MOST_QUESTIONS):
        ours, theirs = socket.socketpair()
        stack.callback(theirs.close)
        connections.begin(ours, port)
        theirs.sendall(data)
    world.settle(lambda: len(world.upstream) == MOST_EACH)
    for number in range(3):
        world.ask(f"one{number}", port)
        assert len(world.upstream) == MOST_EACH
    before = len(asked)
    world.later(0.0)
    assert len(asked) == before + 3, "the connections went on"
    connections.forget(port)
    world.upstream.forget(port)
    world.later(0.0)
    assert (len(world.upstream), len(connections)) == (0, 0)


def test_when_all_places_are_used_the_owner_with_most_questions_loses_one(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MOST", 10)
    world = World(stack, silent)
    for number in range(8):
        world.ask(f"greedy{number}", "greedy")
    for number in range(4):
        world.ask(f"guest{number}", f"guest{number}")
    assert len(world.upstream) == 10
    world.later(0.0)
    assert world.given == {"greedy0": None, "greedy1": None}
    assert MOST >= 8 * MOST_EACH


def test_without_descriptors_a_question_fails_and_nothing_else(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(stack, known)

    def none_left(*_: object) -> socket.socket:
        raise OSError(24, "no descriptor")

    monkeypatch.setattr(resolver_sockets, "_socket", none_left)
    world.ask("one")
    (got,) = world.wait("one")
    assert got is not None
    assert got.code == message.SERVER_FAILURE
    monkeypatch.undo()
    world.ask("two")
    assert values(world.wait("two")) == [[FOUND]]

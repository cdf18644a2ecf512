"""Forwards as operators name them, and those that the host cannot give for a while."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, cast

import pytest

from forwarder.errors import LocalError
from forwarder.future import Future
from gateway.host_forwards import RETRY_S, HostForwards
from gateway.listeners import Listener, Outcome
from gateway.relay.forwards import Forward

TEXTS = (
    "tcp:127.0.0.1:80:192.168.127.2:80",
    "udp:[::1]:53:192.168.127.3:53",
    "unix:/run/a.sock:192.168.127.2:80",
)
ONE, TWO, UNIX = TEXTS
BY = {"asked": 1}


class Host:
    """A relay without traffic, and a host that gives what is not in ``lacks``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lacks: set[str] = set()
        self.remembered: list[str] = []
        self.log: list[str] = []
        self.asked: list[tuple[Forward, Future[Outcome]]] = []
        """Questions that are not answered at once, if ``slow``."""
        self.slow = False
        self._listening: dict[Forward, int] = {}
        self._number = 0
        self.table = HostForwards(
            cast(Any, self),
            cast(Any, self),
            cast(Any, self),
            lambda _, text: self.log.append(text),
            self.clock,
        )

    def clock(self) -> float:
        return self.now

    def texts(self) -> list[str]:
        return self.table.texts()

    def later(self) -> None:
        """Let time pass until the host is asked again."""
        deadline = self.table.deadline()
        assert deadline is not None
        self.now = deadline
        self.table.tick(self.now)

    # The relay.

    def begin(self, forward: Forward) -> None:
        if forward in self._listening:
            raise LocalError("already")

    def give_up(self, forward: Forward) -> None:
        assert forward not in self._listening

    def add(self, forward: Forward, listener: Listener) -> Forward:
        self._listening[forward] = listener.number
        return forward

    def remove(self, forward: Forward) -> None:
        del self._listening[forward]

    def forwards(self) -> list[Forward]:
        return list(self._listening)

    def forward_of(self, listener: int) -> Forward | None:
        return next((each for each, own in self._listening.items() if own == listener), None)

    # The listeners.

    def at(self, forward: Forward) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        if self.slow:
            self.asked.append((forward, future))
        else:
            self.answer(forward, future)
        return future

    def answer(self, forward: Forward, future: Future[Outcome]) -> None:
        self._number += 1
        listener = Listener(cast(socket.socket, None), forward.port, lambda: None, self._number)
        future.set_result(LocalError("it is gone") if forward.near in self.lacks else listener)

    # The memory.

    def check(self, option: str, values: Iterable[object]) -> None:
        assert option == "forward"
        assert list(values)

    def change(self, option: str, values: Iterable[object], by: object) -> None:
        assert option == "forward"
        self.remembered = [str(value) for value in values]


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def forwards(host: Host) -> HostForwards:
    for text in TEXTS:
        host.table.begin(Forward.parse(text))
    return host.table


@pytest.mark.parametrize(
    ("named", "found"),
    [
        *((text, text) for text in TEXTS),
        ("tcp::80:192.168.127.2:80", TEXTS[0]),
        ("tcp::080:192.168.127.2:080", TEXTS[0]),
        ("tcp::80", TEXTS[0]),
        ("udp:[0:0::1]:53:192.168.127.3:53", TEXTS[1]),
        ("udp:[0:0::1]:53", TEXTS[1]),
        ("unix:/run/a.sock", TEXTS[2]),
    ],
)
def test_a_forward_is_found_by_each_way_to_write_it(forwards: HostForwards, named: str, found: str) -> None:
    assert str(forwards.find(named)) == found


@pytest.mark.parametrize(
    "named", ["", "tcp::81", "udp::80", "tcp::80:192.168.127.3:80", "tcp:[::1]:80", "unix:/run"]
)
def test_another_forward_is_not_found(forwards: HostForwards, named: str) -> None:
    with pytest.raises(LocalError, match="there is no forward"):
        forwards.find(named)


def test_what_the_host_cannot_give_is_awaited_and_remembered(host: Host) -> None:
    host.lacks = {"tcp:127.0.0.1:80"}
    for text in (ONE, TWO):
        host.table.begin_again(text)
    host.table.remember()
    assert (host.texts(), host.remembered) == ([TWO], [TWO, ONE])
    assert host.table.deadline() == RETRY_S
    for _ in range(3):
        host.later()
    assert host.texts() == [TWO]
    assert [ONE in line for line in host.log] == [True], "said once"
    host.lacks.clear()
    host.later()
    assert host.texts() == [TWO, ONE]
    assert "forwarded again" in host.log[-1]
    host.later()
    assert host.table.deadline() is None


def test_an_awaited_forward_is_removed_also_while_the_host_is_asked(host: Host) -> None:
    host.lacks = {"tcp:127.0.0.1:80", "udp:[::1]:53"}
    for text in (ONE, TWO):
        host.table.begin_again(text)
    host.table.remove(host.table.find("tcp::80"), BY)
    assert host.remembered == [TWO]
    host.lacks.clear()
    host.slow = True
    host.later()
    host.table.remove(host.table.find(TWO), BY)
    for asked in host.asked:
        host.answer(*asked)
    assert (host.texts(), host.remembered) == ([], [])


def test_an_awaited_forward_that_an_operator_adds_is_there_once(host: Host) -> None:
    host.lacks = {"tcp:127.0.0.1:80"}
    host.table.begin_again(ONE)
    host.lacks.clear()
    host.table.add(Forward.parse("tcp:127.0.0.1:80:192.168.127.9:80"), BY)
    assert host.remembered == host.texts() == ["tcp:127.0.0.1:80:192.168.127.9:80"]
    host.later()
    assert host.table.deadline() is None


def test_a_forward_whose_file_was_deleted_gets_another_listener(host: Host, forwards: HostForwards) -> None:
    assert host.forward_of(3) == Forward.parse(UNIX)
    forwards.deleted(3)
    forwards.deleted(77)
    assert UNIX not in host.texts()
    host.later()
    assert UNIX in host.texts()
    assert host.forward_of(4) == Forward.parse(UNIX)

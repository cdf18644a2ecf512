"""Ports that may not hear each other any more move their floods to rings that only the others get."""

from __future__ import annotations

import fcntl
import os

import pytest

from forwarder.channel import close_all
from forwarder.messages import FloodMoved, FloodRx, Floods, FloodTx, Message, WantFloods
from forwarder.names import Incarnation, Policy
from supervisor.rings import flood_moves
from supervisor.rings.fd_store import F_SEAL_FUTURE_WRITE
from supervisor.rings.flood_moves import AGAIN_S, ANSWER_S
from tests.helpers.fakes import turn_a_while, turn_until
from tests.helpers.fleet_bench import FleetBench, record

F_ADD_SEALS = 1033  # linux/fcntl.h
PORTS = (1, 2, 3, 4)
TO_ONE = Policy(isolated=True, reaches=("vm-1",))
ALONE = Policy(isolated=True)


class Moving:
    """Four ports that hear each other, and what their workers are sent."""

    def __init__(self, bench: FleetBench) -> None:
        self.bench, self.moves = bench, bench.rings.moves
        self.ends = {port: bench.worker(port) for port in PORTS}

    def set(self, port: int, policy: Policy) -> None:
        before = self.bench.registry[port]
        self.bench.registry[port] = before._replace(policy=policy)
        self.bench.rings.changing(before, self.bench.registry[port], self.bench.now)
        self.turn()

    def turn(self) -> None:
        turn_a_while(self.bench.loop)
        while self.moves.tick(self.bench.now):
            continue
        turn_a_while(self.bench.loop)

    def sent(self, port: int) -> list[tuple[Message, tuple[int, ...]]]:
        found = []
        while (received := self.ends[port].receive()) is not None:
            found.append(received)
        return found

    def ring(self, port: int) -> int:
        """Take the ring to which the port's worker is told to move."""
        ((message, (ring,)),) = self.sent(port)
        assert message == FloodTx()
        return ring

    def answer(self, port: int) -> int:
        """Do as a worker does; return its ring."""
        ring = self.ring(port)
        seal(ring)
        self.ends[port].send(FloodMoved())
        return ring

    def lose(self, port: int) -> None:
        """End the channel of a worker that lives."""
        self.bench.channels.drop(self.bench.workers.pop(port))
        self.bench.rings.forget(port)

    def come_back(self, port: int) -> None:
        """Give the same worker another channel."""
        self.ends[port], worker = self.bench.spare()
        worker.served = self.bench.registry[port].incarnation
        self.bench.workers[port] = worker
        self.bench.rings.returned(worker.served)
        self.turn()

    def given(self, port: int) -> dict[int, int]:
        """Take the rings of other ports that the port's worker is given."""
        rings = {}
        for message, descriptors in self.sent(port):
            assert isinstance(message, FloodRx)
            assert message.epoch == message.port
            (rings[message.port],) = descriptors
        return rings


@pytest.fixture
def moving(bench: FleetBench) -> Moving:
    return Moving(bench)


def seal(ring: int) -> None:
    fcntl.fcntl(ring, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)


def same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))


def test_both_sides_move_and_the_rings_go_to_those_that_may_hear_them(moving: Moving) -> None:
    moving.set(2, TO_ONE)
    assert moving.sent(1) == [], "port 1 has lost nobody"
    assert moving.moves.under_way() == {2, 3, 4}
    rings = {port: moving.answer(port) for port in (2, 3, 4)}
    assert moving.bench.moved == []
    moving.turn()
    assert moving.moves.under_way() == set()
    assert sorted(moving.bench.moved) == [2, 3, 4]
    expected = {1: {2, 3, 4}, 2: set(), 3: {4}, 4: {3}}
    for port, ports in expected.items():
        given = moving.given(port)
        assert given.keys() == ports
        assert all(same(ring, rings[other]) for other, ring in given.items())
        close_all(tuple(given.values()))
    moving.ends[1].send(WantFloods(((2, 2),)))
    turn_a_while(moving.bench.loop)
    ((message, (ring,)),) = moving.sent(1)
    assert message == Floods(((2, 2),))
    assert same(ring, rings[2]), "later ones get the new ring, too"
    close_all((ring, *rings.values()))


@pytest.mark.parametrize(
    "policy",
    [
        Policy(pinned=(b"\x02\0\0\0\0\1",)),
        Policy(max_macs=3),
        Policy(isolated=True, reaches=("vm-1", "vm-3", "vm-4")),
    ],
)
def test_a_change_that_parts_no_ports_moves_nothing(moving: Moving, policy: Policy) -> None:
    moving.set(2, policy)
    assert [moving.sent(port) for port in PORTS] == [[], [], [], []]


def test_a_reach_that_shrinks_moves_only_what_it_parts(moving: Moving) -> None:
    moving.set(2, Policy(isolated=True, reaches=("vm-1", "vm-3", "vm-4")))
    moving.set(2, Policy(isolated=True, reaches=("vm-1", "vm-4")))
    rings = [moving.ring(port) for port in (2, 3)]
    assert moving.sent(1) == moving.sent(4) == []
    moving.set(2, Policy())
    assert moving.sent(4) == []
    close_all(rings)


def test_a_reader_that_asks_while_a_port_moves_does_not_get_the_old_ring_again(moving: Moving) -> None:
    moving.set(2, TO_ONE)
    moving.ends[1].send(WantFloods(((2, 2), (3, 3))))
    turn_a_while(moving.bench.loop)
    assert moving.sent(1) == [(Floods(()), ())]
    rings = [moving.answer(port) for port in (2, 3, 4)]
    turn_a_while(moving.bench.loop)  # answered, and not given yet
    moving.ends[1].send(WantFloods(((2, 2),)))
    turn_a_while(moving.bench.loop)
    assert moving.sent(1) == [(Floods(()), ())]
    moving.turn()
    given = moving.given(1)
    assert given.keys() == {2, 3, 4}
    assert not any(moving.moves.is_changing(port) for port in PORTS), "readers that ask get rings again"
    close_all((*rings, *given.values()))


def test_a_port_that_is_parted_again_while_it_moves_moves_again(moving: Moving) -> None:
    moving.set(2, TO_ONE)
    first = [moving.answer(port) for port in (2, 3, 4)]
    moving.set(2, ALONE)
    (own, to_move), *given = moving.sent(1)
    assert own == FloodTx()
    assert [message for message, _ in given] == [FloodRx(3, 3), FloodRx(4, 4)], "and not port 2's"
    assert moving.moves.under_way() == {1, 2}
    assert sorted(moving.bench.moved) == [3, 4], "port 2 has moved once, and moves again"
    second = moving.ring(2)
    assert not same(second, first[0])
    close_all((*first, second, *to_move, *(ring for _, (ring,) in given)))


def test_a_seal_is_looked_at_and_not_believed(moving: Moving, caplog: pytest.LogCaptureFixture) -> None:
    moving.set(2, TO_ONE)
    ring = moving.ring(2)
    moving.ends[2].send(FloodMoved())
    turn_until(moving.bench.loop, lambda: "is reported as sealed, but it is not" in caplog.text)
    moving.turn()
    assert 2 in moving.moves.under_way()
    assert moving.sent(1) == []
    close_all((ring,))


def test_nobody_moves_who_was_not_told_to(moving: Moving, caplog: pytest.LogCaptureFixture) -> None:
    moving.ends[3].send(FloodMoved())
    turn_until(moving.bench.loop, lambda: "was not told to" in caplog.text)
    moving.turn()
    assert moving.sent(1) == []


def test_a_worker_that_does_not_move_is_replaced(moving: Moving, caplog: pytest.LogCaptureFixture) -> None:
    moving.set(2, TO_ONE)
    rings = [moving.answer(3), moving.answer(4), moving.ring(2)]
    moving.turn()
    assert moving.moves.deadline() == ANSWER_S
    moving.bench.now = ANSWER_S
    moving.turn()
    assert moving.bench.replaced == [Incarnation(2, 2)]
    assert "its worker does not leave its flood ring" in caplog.text
    assert moving.moves.deadline() == float("inf")
    close_all(rings)


def test_without_descriptors_a_move_is_made_later(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(flood_moves._core, "flood_create", none)
        moving.set(2, TO_ONE)
        assert moving.sent(2) == []
    assert moving.moves.deadline() == AGAIN_S
    moving.bench.now = AGAIN_S
    moving.turn()
    close_all([moving.ring(port) for port in (2, 3, 4)])


def test_a_port_with_another_worker_has_another_ring_anyway(moving: Moving) -> None:
    moving.set(2, TO_ONE)
    ring = moving.ring(2)
    moving.bench.rings.worker_gone(2)
    assert moving.moves.deadline() == ANSWER_S, "ports 3 and 4"
    before, moving.bench.registry[2] = moving.bench.registry[2], record(2, epoch=9)
    moving.bench.rings.changing(before, moving.bench.registry[2], 0.0)
    moving.turn()
    assert moving.sent(2) == []
    close_all((ring,))


def test_a_port_whose_worker_is_lost_before_it_is_told_to_move_is_not_waited_for(moving: Moving) -> None:
    before = moving.bench.registry[2]
    moving.bench.registry[2] = before._replace(policy=TO_ONE)
    moving.bench.rings.changing(before, moving.bench.registry[2], 0.0)
    moving.bench.live.discard((2, 2))
    moving.turn()
    assert moving.bench.moved == [2]
    close_all([moving.ring(port) for port in (3, 4)])


def test_a_port_moves_although_its_channel_was_lost_when_it_was_parted(moving: Moving) -> None:
    moving.lose(2)
    moving.set(2, TO_ONE)
    rings = [moving.answer(port) for port in (3, 4)]
    moving.turn()
    assert moving.moves.under_way() == {2}
    moving.come_back(2)
    rings.append(moving.answer(2))
    moving.turn()
    assert 2 in moving.bench.moved
    given = moving.given(1)
    assert same(given[2], rings[-1])
    close_all((*rings, *given.values()))


def test_a_move_whose_answer_is_lost_with_the_channel_is_over_when_the_worker_is_back(moving: Moving) -> None:
    moving.set(2, TO_ONE)
    rings = [moving.answer(port) for port in (3, 4)]
    rings.append(moving.ring(2))
    seal(rings[-1])
    moving.lose(2)
    moving.turn()
    close_all(tuple(moving.given(1).values()))
    moving.ends[1].send(WantFloods(((2, 2),)))
    turn_a_while(moving.bench.loop)
    assert moving.sent(1) == [(Floods(()), ())], "and not the old ring, which would be read again"
    moving.come_back(2)
    assert moving.sent(2) == []
    given = moving.given(1)
    assert same(given[2], rings[-1])
    assert sorted(moving.bench.moved) == [2, 3, 4]
    close_all((*rings, *given.values()))


def test_a_worker_that_was_not_told_to_move_is_told_over_its_next_channel(moving: Moving) -> None:
    moving.set(2, TO_ONE)
    rings = [moving.ring(port) for port in (2, 3, 4)]  # port 2's is lost on its way
    moving.lose(2)
    moving.come_back(2)
    again = moving.answer(2)
    moving.turn()
    assert moving.bench.moved == [2]
    close_all((*rings, again, *moving.given(1).values()))


def test_a_worker_cannot_put_its_move_off_by_ending_its_channel(moving: Moving) -> None:
    moving.set(2, TO_ONE)
    rings = [moving.ring(2), moving.answer(3), moving.answer(4)]
    moving.turn()
    for moving.bench.now in (0.5 * ANSWER_S, 0.9 * ANSWER_S):
        moving.lose(2)
        moving.come_back(2)
        rings.append(moving.ring(2))
    moving.lose(2)
    moving.bench.now = ANSWER_S
    moving.turn()
    assert moving.bench.replaced == [Incarnation(2, 2)]
    close_all((*rings, *(each for port in (1, 3, 4) for each in moving.given(port).values())))


def reserved(moving: Moving) -> Incarnation:
    """Give port 5 to a worker that does not forward yet; the others have had its ring since before."""
    moving.ends[5] = moving.bench.worker(5)
    moving.bench.live.discard((5, 5))
    moving.bench.reserve[5] = moving.bench.registry[5]
    return Incarnation(5, 5)


def test_a_reserved_port_whose_ring_others_have_moves_when_its_worker_forwards(moving: Moving) -> None:
    newcomer = reserved(moving)
    moving.set(2, ALONE)
    rings = [moving.answer(port) for port in (1, 2, 3, 4)]
    assert moving.sent(5) == []
    assert moving.moves.under_way() >= {5}
    assert 5 not in moving.bench.moved, "an operator waits for it"
    del moving.bench.reserve[5]
    moving.bench.live.add(newcomer)
    moving.moves.hurry(newcomer, moving.bench.now)
    ring = moving.answer(5)
    moving.turn()
    assert 5 in moving.bench.moved
    assert 5 not in moving.given(2)
    close_all((*rings, ring, *(each for port in (1, 3, 4) for each in moving.given(port).values())))


def test_a_reserved_port_whose_worker_is_lost_is_not_waited_for_for_ever(moving: Moving) -> None:
    reserved(moving)
    moving.set(2, ALONE)
    rings = [moving.answer(port) for port in (1, 2, 3, 4)]
    del moving.bench.reserve[5]  # its next worker has another epoch, and another ring
    moving.bench.now += AGAIN_S
    moving.turn()
    assert 5 in moving.bench.moved
    assert 5 not in moving.moves.under_way()
    close_all((*rings, *(each for port in PORTS for each in moving.given(port).values())))


def test_a_newcomer_to_the_table_moves_nothing(moving: Moving) -> None:
    moving.bench.rings.changing(None, moving.bench.registry[2], 0.0)
    moving.turn()
    assert [moving.sent(port) for port in PORTS] == [[], [], [], []]


def test_all_descriptors_are_closed(moving: Moving) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(10):
        moving.set(2, TO_ONE)
        rings = [moving.answer(port) for port in (2, 3, 4)]
        moving.turn()
        for port in PORTS:
            rings += moving.given(port).values()
        moving.set(2, Policy())
        close_all(rings)
    assert descriptors() == before

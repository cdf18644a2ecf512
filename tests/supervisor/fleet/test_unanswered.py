"""When a worker that leaves its VM without an answer is taken for hung."""

from __future__ import annotations

from forwarder.names import Incarnation
from supervisor.fleet.unanswered import HUNG_S, LOOK_S, Unanswered

ONE = Incarnation(1, 7)


def test_a_worker_that_reads_its_vms_messages_never_hangs() -> None:
    watch = Unanswered()
    for at in range(100):
        assert not watch.seen(ONE, unread=at % 2 == 0, turned_at=0.0, now=at * HUNG_S)
    assert watch.deadline() == float("inf")


def test_a_worker_whose_loop_turns_is_busy_and_does_not_hang() -> None:
    watch = Unanswered()
    for at in range(100):
        assert not watch.seen(ONE, unread=True, turned_at=at * HUNG_S - 0.01, now=at * HUNG_S)


def test_a_worker_that_leaves_bytes_unread_and_does_not_turn_hangs_after_a_while() -> None:
    watch = Unanswered()
    assert not watch.seen(ONE, unread=True, turned_at=9.0, now=10.0)
    assert not watch.seen(ONE, unread=True, turned_at=9.0, now=10.0 + HUNG_S - 0.01)
    assert watch.seen(ONE, unread=True, turned_at=9.0, now=10.0 + HUNG_S)
    assert not watch.seen(ONE, unread=True, turned_at=9.0, now=10.1 + HUNG_S)  # it is told once


def test_a_worker_is_looked_at_often_only_while_bytes_are_unread() -> None:
    watch = Unanswered()
    assert watch.due(10.0)
    assert not watch.due(10.0 + LOOK_S / 2)
    assert watch.deadline() == float("inf")
    watch.seen(ONE, unread=True, turned_at=0.0, now=10.0)
    assert watch.deadline() == 10.0 + LOOK_S
    watch.forget(ONE)
    assert watch.deadline() == float("inf")

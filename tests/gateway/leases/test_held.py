"""Questions for a lease that wait for the end of the guest's old port."""

from __future__ import annotations

from gateway.lan.frames import Datagram
from gateway.leases.held import HOLD_S, MOST, Held, Question
from gateway.leases.table import Leases
from gateway.ports import Port

OLD, NEW, THIRD = Port(3, 11), Port(5, 12), Port(6, 13)
NEVER = float("inf")


def mac(number: int) -> bytes:
    return number.to_bytes(6, "big")


def question(number: int, port: Port = NEW, payload: bytes = b"") -> Question:
    return Question(Datagram(mac(number), bytes(4), bytes(4), 68, 67, payload), port)


def test_a_question_waits_until_the_old_port_leaves_or_its_time_is_over() -> None:
    held = Held()
    assert held.deadline() == NEVER
    for number, now in ((1, 0.0), (2, 0.1)):
        assert held.hold(question(number), OLD if number == 1 else THIRD, now)
    assert (held.left(Port(9, 9)), held.due(0.4)) == ([], [])
    assert held.left(OLD) == [question(1)]
    assert held.deadline() == 0.1 + HOLD_S
    assert held.due(0.1 + HOLD_S) == [question(2)]
    assert (held.due(9.0), held.left(THIRD), held.deadline()) == ([], [], NEVER)


def test_a_repeated_question_replaces_the_one_before_and_does_not_wait_longer() -> None:
    held = Held()
    held.hold(question(1), OLD, 0.0)
    held.hold(question(1, payload=b"again"), OLD, 0.3)
    assert held.due(HOLD_S) == [question(1, payload=b"again")]


def test_questions_of_a_port_that_leaves_are_forgotten_and_places_are_bounded() -> None:
    held = Held()
    assert all(held.hold(question(number), OLD, 0.0) for number in range(MOST))
    assert not held.hold(question(MOST), OLD, 0.0)
    assert held.hold(question(0), OLD, 0.0)
    assert held.left(NEW) == []
    assert held.due(9.0) == []


def test_only_a_guest_with_a_lease_at_another_port_may_have_moved() -> None:
    leases = Leases(3, 253, {})
    assert leases.port_before(mac(1), NEW) is None
    leases.offer(mac(1), OLD, 0, 0.0)
    assert leases.port_before(mac(1), OLD) is None
    assert leases.port_before(mac(1), NEW) == OLD
    leases.offer(mac(1), NEW, 0, 0.0)
    assert leases.port_before(mac(1), NEW) is None
    leases.left(OLD, 1.0)
    leases.left(NEW, 1.0)
    assert leases.port_before(mac(1), THIRD) is None

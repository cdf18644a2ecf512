"""An operator hears that settings are in force as soon as they are, and after a second at most."""

from __future__ import annotations

from forwarder.future import Future
from supervisor.fleet.confirmations import CONFIRM_S, Confirmations


def results(future: Future[bool]) -> list[bool]:
    found: list[bool] = []
    future.add_done_callback(found.append)
    return found


def test_a_worker_confirms_its_own_port_up_to_its_sequence() -> None:
    made = Confirmations()
    first, second = results(made.expect(1, 41, 0.0)), results(made.expect(1, 42, 0.0))
    other = results(made.expect(2, 41, 0.0))
    made.heard(1, 40)
    assert (first, second, other) == ([], [], [])
    made.heard(1, 41)
    assert (first, second, other) == ([True], [], [])
    made.heard(1, 50)
    assert (first, second, other) == ([True], [True], [])


def test_a_worker_that_does_not_answer_is_waited_for_no_longer_than_a_second() -> None:
    made = Confirmations()
    assert made.deadline() == float("inf")
    found = results(made.expect(1, 41, 10.0))
    assert made.deadline() == 10.0 + CONFIRM_S
    made.tick(10.0 + CONFIRM_S - 0.01)
    assert found == []
    made.tick(10.0 + CONFIRM_S)
    made.heard(1, 41)
    assert found == [False]


def test_a_worker_that_has_gone_is_not_waited_for() -> None:
    made = Confirmations()
    found = results(made.expect(1, 41, 0.0))
    made.forget(2)
    assert found == []
    made.forget(1)
    assert found == [True]

"""An operator hears that settings are in force as soon as they are, and after two seconds at most."""

from __future__ import annotations

import pytest

from forwarder.future import Future
from forwarder.names import Policy
from supervisor.membership.confirmations import CONFIRM_S, Confirmations
from supervisor.ports.in_force import NOTHING, Missing, is_wide


def results(future: Future[Missing]) -> list[Missing]:
    found: list[Missing] = []
    future.add_done_callback(found.append)
    return found


def test_a_worker_confirms_its_own_port_up_to_its_sequence() -> None:
    made = Confirmations()
    first, second = results(made.expect(41, {1}, (), 0.0)), results(made.expect(42, {1}, (), 0.0))
    other = results(made.expect(41, {2}, (), 0.0))
    made.heard(1, 40)
    assert (first, second, other) == ([], [], [])
    made.heard(1, 41)
    assert (first, second, other) == ([NOTHING], [], [])
    made.heard(1, 50)
    assert (first, second, other) == ([NOTHING], [NOTHING], [])


def test_a_change_that_concerns_several_ports_is_in_force_with_the_last_of_them() -> None:
    made = Confirmations()
    found = results(made.expect(41, {1, 2, 3}, {2, 3}, 0.0))
    made.heard(1, 41)
    made.heard(3, 41)
    made.moved(2)
    made.heard(2, 40)
    made.heard(2, 41)
    assert found == [], "port 3 still floods into its old ring"
    made.moved(3)
    assert found == [NOTHING]


def test_ports_that_do_not_answer_are_named_after_two_seconds() -> None:
    made = Confirmations()
    assert made.deadline() == float("inf")
    found = results(made.expect(41, {1, 2}, {1, 2, 3}, 10.0))
    made.heard(1, 41)
    made.moved(1)
    assert made.deadline() == 10.0 + CONFIRM_S
    made.tick(10.0 + CONFIRM_S - 0.01)
    assert found == []
    made.tick(10.0 + CONFIRM_S)
    made.heard(2, 41)
    assert found == [Missing(frozenset({2}), frozenset({2, 3}))]


def test_a_worker_that_has_gone_is_not_waited_for() -> None:
    made = Confirmations()
    found = results(made.expect(41, {1}, {1}, 0.0))
    made.forget(2)
    assert found == []
    made.forget(1)
    assert found == [NOTHING]


def test_a_change_that_concerns_no_worker_is_in_force_at_once() -> None:
    assert results(Confirmations().expect(41, (), (), 0.0)) == [NOTHING]


@pytest.mark.parametrize(
    ("policy", "wide"),
    [
        (Policy(), False),
        (Policy(max_macs=3, broadcast_per_s=5, mtu=1500), False),
        (Policy(pinned=(b"\2\0\0\0\0\1",)), True),
        (Policy(isolated=True), True),
        (Policy(reaches=("a",)), True),
    ],
)
def test_settings_that_other_ports_enforce_concern_their_workers(policy: Policy, wide: bool) -> None:
    assert is_wide(Policy(), policy) == wide

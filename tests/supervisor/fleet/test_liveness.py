"""Silent workers: called silent once, heard again, and only under the present epoch."""

import math

from supervisor.fleet.liveness import SILENT_PULSES, Liveness

LIMIT = SILENT_PULSES * 2.0


def test_a_worker_that_is_not_heard_becomes_silent_once_and_is_cleared_when_heard():
    liveness = Liveness(2.0)
    liveness.watch(1, 7, 100.0)
    assert liveness.deadline() == 100.0 + LIMIT
    assert liveness.tick(100.0 + LIMIT - 0.1) == []
    assert liveness.tick(100.0 + LIMIT) == [(1, 7)]
    assert liveness.is_silent(1)
    assert liveness.deadline() == 100.0 + LIMIT + 2.0, "it is looked for once a pulse"
    assert liveness.tick(108.0) == []
    assert liveness.heard(1, 7, 109.0) == 9.0
    assert not liveness.is_silent(1)
    assert liveness.tick(110.0) == []
    assert liveness.deadline() == 109.0 + LIMIT


def test_workers_are_not_silent_if_the_supervisor_did_not_run():
    liveness = Liveness(2.0)
    liveness.watch(1, 7, 0.0)
    assert liveness.tick(60.0) == []
    assert liveness.deadline() == 60.0 + LIMIT
    assert liveness.tick(60.0 + LIMIT) == [(1, 7)]


def test_any_sign_of_life_puts_silence_off():
    liveness = Liveness(2.0)
    liveness.watch(1, 7, 0.0)
    assert liveness.heard(1, 7, 5.0) is None
    assert liveness.tick(LIMIT) == []
    assert liveness.tick(5.0 + LIMIT) == [(1, 7)]


def test_a_past_life_says_nothing_about_this_one():
    liveness = Liveness(2.0)
    liveness.watch(1, 7, 0.0)
    liveness.watch(1, 8, 1.0)
    assert liveness.heard(1, 7, 6.0) is None
    assert liveness.tick(1.0 + LIMIT) == [(1, 8)]
    assert liveness.heard(1, 7, 8.0) is None
    assert liveness.is_silent(1)


def test_a_new_worker_begins_unsuspected():
    liveness = Liveness(2.0)
    liveness.watch(1, 7, 0.0)
    liveness.tick(LIMIT)
    liveness.watch(1, 8, LIMIT)
    assert not liveness.is_silent(1)
    liveness.tick(LIMIT)
    assert liveness.deadline() == 2 * LIMIT


def test_a_forgotten_port_is_never_silent():
    liveness = Liveness(2.0)
    liveness.watch(1, 7, 0.0)
    liveness.watch(2, 8, 0.0)
    liveness.tick(LIMIT)
    liveness.forget(1)
    liveness.forget(3)
    assert not liveness.is_silent(1)
    assert liveness.is_silent(2)
    assert liveness.heard(1, 7, 10.0) is None
    liveness.forget(2)
    liveness.tick(LIMIT)
    assert liveness.deadline() == math.inf


def test_an_older_sign_of_life_is_no_news():
    liveness = Liveness(2.0)
    liveness.watch(1, 7, 10.0)
    assert liveness.heard(1, 7, 9.0) is None
    assert liveness.tick(10.0 + LIMIT) == [(1, 7)]
    assert liveness.heard(1, 7, 10.0) is None
    assert liveness.is_silent(1)


def test_the_worker_heard_longest_ago_is_due_first():
    liveness = Liveness(2.0)
    for port in (1, 2, 3):
        liveness.watch(port, port, float(port))
    liveness.heard(1, 1, 4.0)
    liveness.tick(4.0)
    assert liveness.deadline() == 2.0 + LIMIT
    assert liveness.tick(3.0 + LIMIT) == [(2, 2), (3, 3)]
    assert liveness.tick(4.0 + LIMIT) == [(1, 1)]

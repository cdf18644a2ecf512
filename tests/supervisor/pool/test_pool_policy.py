"""How many workers are started: enough spares, never a crowd at once, ever more slowly where it fails."""

from __future__ import annotations

from supervisor.pool import pool_policy
from supervisor.pool.pool_policy import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    REFILL_S,
    SPARES,
    STARTING,
    PoolPolicy,
)


def start(made: PoolPolicy, waiting: int, now: float) -> int:
    count = made.to_start(waiting, now)
    for _ in range(count):
        made.started()
    return count


def test_spares_are_kept_and_replaced_after_use() -> None:
    made = PoolPolicy()
    assert start(made, 0, 0) == SPARES
    assert start(made, 0, 0) == 0
    for _ in range(SPARES):
        made.ready()
    assert start(made, 0, 0) == 0
    made.taken(0.0)
    assert start(made, 0, 0) == 0, "a newcomer needs the cores first"
    assert made.deadline(0) == REFILL_S
    assert start(made, 0, REFILL_S) == 1
    assert made.deadline(0) == float("inf")


def test_a_crowd_starts_a_few_at_a_time() -> None:
    made = PoolPolicy()
    started = 0
    for _ in range(100):
        count = start(made, 100 - started, 0)
        assert made.starting <= STARTING
        for _ in range(count):
            made.ready()
            made.taken(0.0)
        started += count
    assert started >= 100


def test_failures_in_a_row_are_spread_and_tried_one_at_a_time() -> None:
    made = PoolPolicy()
    assert start(made, 5, 0.0) == min(STARTING, 5 + SPARES)
    now = 0.0
    while made.starting:
        made.failed(now)
    pauses = []
    for _ in range(10):
        due = made.deadline(5)
        pauses.append(due - now)
        assert made.to_start(5, due - 0.001) == 0
        now = due
        assert start(made, 5, now) == 1
        made.failed(now)
    assert pauses == sorted(pauses)
    assert pauses[0] >= FIRST_PAUSE_S
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_worker_that_gets_ready_ends_the_pauses() -> None:
    made = PoolPolicy()
    start(made, 0, 0.0)
    made.failed(0.0)
    assert made.to_start(0, 0.0) == 0
    made.ready()
    assert made.to_start(5, pool_policy.LONGEST_PAUSE_S) > 1


def test_an_idle_worker_that_ends_is_a_failure_too() -> None:
    made = PoolPolicy()
    start(made, 0, 0.0)
    made.ready()
    made.ready()
    made.lost(1.0)
    assert made.to_start(0, 1.0) == 0
    assert made.deadline(0) == 1.0 + FIRST_PAUSE_S
    assert start(made, 0, made.deadline(0)) == 1

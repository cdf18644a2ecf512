"""Rates of ports: a burst, a queue, and no more than the rate over any time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.rates import Rates


def test_a_burst_then_a_queue_then_nothing() -> None:
    rates = Rates(rate=1000, burst=500, queue=64)
    waits = [rates.take("one", 10.0) for _ in range(600)]
    assert waits[:500] == [0.0] * 500
    assert [round(wait, 6) for wait in waits[500:564] if wait is not None] == [n / 1000 for n in range(1, 65)]
    assert waits[564:] == [None] * 36
    assert rates.take("other", 10.0) == 0.0
    assert rates.take("one", 11.0) == 0.0


def test_without_a_queue_a_request_is_served_at_once_or_refused() -> None:
    rates = Rates(rate=2, burst=3, queue=0)
    assert [rates.take(1, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, None]
    assert [rates.take(1, 0.5), rates.take(1, 0.5)] == [0.0, None]
    rates.forget(1)
    rates.forget(1)
    assert rates.take(1, 0.5) == 0.0


@given(st.lists(st.floats(0, 0.3), max_size=200), st.integers(1, 50), st.integers(0, 20), st.integers(0, 20))
def test_granted_work_never_exceeds_the_rate(pauses: list[float], rate: int, burst: int, queue: int) -> None:
    rates = Rates(rate, burst, queue)
    now, done = 1000.0, []
    for pause in pauses:
        now += pause
        wait = rates.take("one", now)
        if wait is not None:
            assert wait <= (queue + 1) / rate
            done.append(now + wait)
    assert done == sorted(done)
    for first in range(0, len(done), 7):
        for last in range(first, len(done), 5):
            assert last - first <= burst + 1 + (done[last] - done[first]) * rate + 1e-6

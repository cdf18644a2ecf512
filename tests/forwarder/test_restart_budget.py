"""The restart budget: waits double, too many losses park a port, and old losses are forgotten."""

from forwarder.restart_budget import Budget, Losses

BUDGET = Budget(attempts=3, window_s=10.0, first_s=0.5, longest_s=1.5)


def test_the_wait_doubles_up_to_its_bound_and_then_the_port_parks():
    losses = Losses(BUDGET)
    assert losses.lost(100.0) == 100.5
    assert losses.lost(101.0) == 102.0
    assert losses.lost(103.0) == 104.5
    assert losses.lost(105.0) is None
    assert losses.lost(105.1) is None


def test_losses_that_left_the_window_are_forgotten():
    losses = Losses(BUDGET)
    for when in (0.0, 1.0, 2.0):
        assert losses.lost(when) is not None
    assert losses.lost(9.9) is None
    assert losses.lost(10.0) == 11.5  # the first has left
    assert losses.lost(100.0) == 100.5


def test_a_budget_of_nothing_parks_at_once():
    assert Losses(Budget(attempts=0)).lost(0.0) is None


def test_a_port_that_dies_rarely_never_parks():
    losses = Losses(BUDGET)
    for week in range(1000):
        assert losses.lost(week * 604_800.0) == week * 604_800.0 + 0.5

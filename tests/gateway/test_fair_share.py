"""Fair shares: no owner gets all, and the next owner always finds room while there is any."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.fair_share import GREED, Shares


@given(st.integers(1, 400), st.lists(st.integers(0, 5), max_size=600))
def test_an_owner_that_has_nothing_finds_room_while_there_is_any(most, owners):
    shares = Shares(most)
    has = dict.fromkeys(range(6), 0)
    for owner in owners:
        given_one = shares.take(owner)
        assert given_one == (has[owner] < GREED * (most - sum(has.values())))
        has[owner] += given_one
    assert sum(has.values()) == shares.taken <= most
    if shares.taken < most:
        assert shares.take("somebody new")


def test_a_single_owner_may_have_nearly_all_units():
    shares = Shares(900)
    assert sum(shares.take("alone") for _ in range(2000)) == 800


@given(st.lists(st.sampled_from("abc"), max_size=50))
def test_returned_units_are_free_again(owners):
    shares = Shares(20)
    taken = [owner for owner in owners if shares.take(owner)]
    for owner in taken:
        shares.give_back(owner)
    assert shares.taken == 0
    assert not shares._counts

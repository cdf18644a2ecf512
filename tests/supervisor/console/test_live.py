"""The row of each port, and the pairs of ports that talk."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.console import live
from supervisor.console.stats import DROPS, Departed, egress_full
from tests.supervisor.console.test_stats import reading, view

PORTS = st.integers(1, 4)
LOSSES = st.lists(st.tuples(PORTS, PORTS, st.integers(0, 9), st.integers(0, 9)), max_size=4)


def row(ports, readings, departed=None):
    (found,) = live.rows(ports, readings, departed or Departed())
    return dict(zip(live.COLUMNS, found, strict=True))


def test_a_row_has_the_numbers_of_its_columns() -> None:
    counters = {"rx_bytes": 1, "tx_bytes": 2, "rx_frames": 3, "tx_frames": 4, "egress_bytes": 5}
    drops = dict.fromkeys(DROPS, 10)
    found = row([view(7, stalled=True)], {7: reading(7, **counters, **drops, flood_lost=3)})
    assert found == {
        "port": 7, "state": "live", "stalled": True, "rx_bytes": 1, "tx_bytes": 2, "rx_frames": 3,
        "tx_frames": 4, "queue": 5, "drops": drops | {"egress_full": 3},
    }  # fmt: skip
    assert row([view(7)], {})["rx_bytes"] == 0


@given(st.dictionaries(PORTS, st.tuples(PORTS, LOSSES, st.integers(0, 9))), st.integers(0, 9))
def test_drops_count_a_full_ring_as_stats_does(made, gone) -> None:
    readings = {port: reading(born, losses, flood_lost=lost) for port, (born, losses, lost) in made.items()}
    departed = Departed()
    departed.towards = {(1, 1): gone}
    for port in readings:
        assert row([view(port)], readings, departed)["drops"].get("egress_full", 0) == egress_full(
            port, readings, departed
        )


def test_a_talk_has_its_rate_since_the_last_reading() -> None:
    talks = live.Talks()
    assert talks.rates({1: [(2, 500)]}, 10.0) == []
    told = talks.rates({1: [(2, 700), (3, 40)], 2: [(1, 6000)]}, 12.0)
    assert told == [
        (2, 1, 3000),
        (1, 2, 100),
        (1, 3, 20),
    ]
    assert talks.rates({1: [(2, 700), (3, 40)], 2: [(1, 10)]}, 13.0) == []


def test_a_second_viewer_does_not_make_the_first_ones_time_short() -> None:
    talks = live.Talks()
    talks.rates({1: [(2, 0)]}, 10.0)
    talks.rates({1: [(2, 100)]}, 10.1)
    assert talks.rates({1: [(2, 1000)]}, 11.0) == [(1, 2, 1000)]


def test_only_the_heaviest_talks_are_in_the_answer() -> None:
    talks = live.Talks()
    talks.rates({}, 1.0)
    everybody = {1: [(peer, peer) for peer in range(2, 1024)]}
    told = talks.rates(everybody, 2.0)
    assert [peer for _, peer, _ in told] == list(range(1023, 1023 - live.MOST_TALKS, -1))

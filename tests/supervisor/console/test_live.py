"""The row of each port, and the pairs of ports that talk."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.console import live
from supervisor.console.stats import DROPS
from tests.supervisor.console.test_stats import reading, view

COUNTS = st.dictionaries(st.integers(1, 4), st.integers(0, 2))


def row(ports, readings, full):
    rows = live.Rows()
    rows.update(ports, readings, full)
    (found,) = rows.after(0)
    return dict(zip(live.COLUMNS, found, strict=True))


def test_a_row_has_the_numbers_of_its_columns() -> None:
    counters = {"rx_bytes": 1, "tx_bytes": 2, "rx_frames": 3, "tx_frames": 4, "egress_bytes": 5}
    drops = dict.fromkeys(DROPS, 10)
    found = row([view(7, stalled=True)], {7: reading(7, **counters, **drops)}, {7: 3})
    assert found == {
        "port": 7, "state": "live", "stalled": True, "rx_bytes": 1, "tx_bytes": 2, "rx_frames": 3,
        "tx_frames": 4, "queue": 5, "drops": drops | {"egress_full": 3},
    }  # fmt: skip
    assert row([view(7)], {}, {})["rx_bytes"] == 0


@given(st.lists(st.tuples(COUNTS, COUNTS, st.integers(0, 5)), max_size=8))
def test_each_viewer_has_the_present_rows_after_any_of_its_answers(steps) -> None:
    rows, readings, viewers = live.Rows(), {}, {asked: (0, {}) for asked in range(6)}
    for counted, full, asks in steps:
        for port, frames in counted.items():
            before = readings.get(port)
            if before is None or before.counters["rx_frames"] != frames:
                readings[port] = reading(port, rx_frames=frames)
        readings = {port: readings[port] for port in counted}  # the others have left
        rows.update([view(port) for port in counted], readings, full)
        number, known = viewers[asks]
        known |= {each[0]: each for each in rows.after(number)}
        viewers[asks] = rows.number, known
        now = {each[0]: each for each in rows.after(0)}
        assert {port: known[port] for port in now} == now
        assert rows.after(rows.number) == []


def test_only_rows_that_have_changed_are_in_the_next_answer() -> None:
    rows, readings = live.Rows(), {port: reading(port) for port in (1, 2, 3, 4)}
    rows.update([view(port) for port in readings], readings, {})
    first = rows.number
    readings[2] = reading(2, rx_frames=1)
    rows.update([view(1), view(2), view(3), view(4, stalled=True)], readings, {3: 1})
    assert [each[0] for each in rows.after(first)] == [2, 3, 4]


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

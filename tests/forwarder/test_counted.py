"""The names of counters: each counter of the code has a meaning, and is always shown."""

import re
from pathlib import Path

import gateway.relay
from forwarder import counted
from supervisor.console import stats

RELAY = Path(gateway.relay.__file__).parent


def test_every_word_that_the_relay_counts_has_a_meaning() -> None:
    code = "".join(path.read_text() for path in RELAY.glob("*.py"))
    words = set(re.findall(r'counts\["(\w+)"\] \+= |counts\.refuse\("(\w+)"', code))
    words = {word for pair in words for word in pair if word}
    assert len(words) > 5
    assert words <= {*counted.REFUSED, *counted.RELAYED}
    assert set(re.findall(r'counts\.refuse\("(\w+)"', code)) <= {*counted.REFUSED}


def test_every_counter_is_shown_even_if_it_is_zero() -> None:
    empty = counted.in_order({})
    assert empty["flows"] == {"tcp": 0, "udp": 0, "ping": 0}
    assert {*empty["refused"]} == {*counted.REFUSED}
    assert {*empty["relayed"]} == {*counted.RELAYED}


def test_a_counter_without_a_meaning_is_still_shown() -> None:
    groups = counted.in_order({"connections": 2, "flows": 5, "pings": 1, "denied": 3, "new_word": 4})
    assert groups["flows"] == {"tcp": 2, "udp": 4, "ping": 1}
    assert groups["refused"]["denied"] == 3
    assert groups["relayed"]["new_word"] == 4


def test_the_drops_that_stats_shows_are_those_that_have_a_meaning() -> None:
    assert {"egress_full", *stats.DROPS} == {*counted.DROPS}

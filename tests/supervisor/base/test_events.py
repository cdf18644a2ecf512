"""The last events: bounded, fair between kinds, whole after a death, the same record as a line of the log."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from supervisor.base import events, logs
from supervisor.base.events import BURST, MANY, MOST, SLOT_BYTES, EventLog
from supervisor.base.logs import Throttle, asked_by, log, say

pytestmark = pytest.mark.usefixtures("quiet_log")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    return now


def everything(kept: EventLog) -> list[events.Event]:
    found: list[events.Event] = []
    after = 0
    while True:
        some, after = kept.after(after)
        if not some:
            return found
        assert len(some) <= MANY
        found += some


def logged(kept: EventLog, level: str, form: str) -> io.StringIO:
    """Set the log up, and have what it would write to stderr written here."""
    logs.set_up(level, form)
    (queued,) = log.handlers
    out = io.StringIO()
    stream = logging.StreamHandler(out)
    stream.setFormatter(queued.formatter)
    stream.setLevel(queued.level)
    log.handlers[:] = [stream, kept]
    return out


def fill(clock: list[float], kind: str, count: int) -> None:
    for number in range(count):
        clock[0] += 1.0
        say(kind, f"{kind} {number}", port=number)


def test_events_are_the_lines_of_the_log(tmp_path: Path) -> None:
    kept = EventLog(str(tmp_path / "ring"))
    out = logged(kept, "info", "json")
    with asked_by({"uid": 7, "pid": 8}):
        say("set", "port 3 (web): set pin=…", port=3, name="web", mac=None)
    log.warning("a line of %d words", 5)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event | {"sequence": None} for event in everything(kept)] == [
        line | {"sequence": None} for line in lines
    ]
    assert (lines[0]["event"], lines[0]["by"], lines[0]["port"]) == ("set", {"uid": 7, "pid": 8}, 3)
    assert "mac" not in lines[0]
    assert (lines[1]["event"], lines[1]["level"]) == ("message", "warning")
    kept.end(keep=False)
    assert not list(tmp_path.iterdir())


def test_a_line_below_the_log_level_is_still_an_event(tmp_path: Path) -> None:
    kept = EventLog(str(tmp_path / "ring"))
    out = logged(kept, "error", "text")
    say("attach", "port 1 came", port=1)
    log.debug("not this")
    assert out.getvalue() == ""
    assert [event["event"] for event in everything(kept)] == ["attach"]
    kept.end(keep=False)


def test_a_kind_that_comes_all_the_time_does_not_push_out_the_others(
    tmp_path: Path, clock: list[float]
) -> None:
    kept = EventLog(str(tmp_path / "ring"))
    fill(clock, "stall", 3)
    fill(clock, "gone", 2 * MOST)
    fill(clock, "attach", 700)
    counts = Counter(str(event["event"]) for event in everything(kept))
    assert counts == {"stall": 3, "gone": (MOST - 3) // 2, "attach": MOST - 3 - (MOST - 3) // 2} or (
        counts["stall"] == 3 and abs(counts["gone"] - counts["attach"]) <= 1 and counts.total() == MOST
    )
    assert everything(kept)[-1]["message"] == "attach 699"
    kept.end(keep=False)


def test_a_flood_of_one_kind_is_some_events_and_a_count(tmp_path: Path, clock: list[float]) -> None:
    kept = EventLog(str(tmp_path / "ring"))
    for number in range(5000):
        say("attach", f"port {number} came")
    say("stall", "port 1 stalled")
    found = everything(kept)
    assert [event["event"] for event in found] == ["attach"] * BURST + ["stall"]
    assert found[BURST - 1]["more"] == 5000 - BURST
    clock[0] += 1.0
    say("attach", "a second later")
    assert everything(kept)[-1]["message"] == "a second later"
    kept.end(keep=True)
    again = EventLog(str(tmp_path / "ring"))
    assert everything(again)[BURST - 1]["more"] == 5000 - BURST
    again.end(keep=False)


def test_events_outlive_a_death_even_in_the_middle_of_one(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "ring"
    kept = EventLog(str(path))
    fill(clock, "gone", MOST + 5)
    before = everything(kept)
    kept.end(keep=True)
    data = bytearray(path.read_bytes())
    assert len(data) == MOST * SLOT_BYTES
    place = data.index(b'"port":500}') // SLOT_BYTES * SLOT_BYTES
    data[place + 40 : place + SLOT_BYTES] = b"\xff" * (SLOT_BYTES - 40)
    path.write_bytes(data)
    again = EventLog(str(path))
    assert everything(again) == [event for event in before if event["port"] != 500]
    say("stall", "the next one")
    assert everything(again)[-1]["sequence"] == before[-1]["sequence"] + 1  # type: ignore[operator]
    fill(clock, "attach", 3)
    assert len(everything(again)) == MOST
    again.end(keep=False)


@pytest.mark.parametrize("garbage", ['{"time": "x"}', "[[[", '{"sequence":1e999,"time":1,"event":"x"}', "7"])
def test_slots_with_garbage_are_skipped(tmp_path: Path, garbage: str) -> None:
    path = tmp_path / "ring"
    path.write_bytes(garbage.encode().ljust(SLOT_BYTES, b"\0").ljust(MOST * SLOT_BYTES, b"\0"))
    kept = EventLog(str(path))
    assert everything(kept) == []
    say("gone", "works")
    assert len(everything(kept)) == 1
    kept.end(keep=False)


@pytest.mark.parametrize("text", ["ä" * 4000, '"' * 4000, "\n" * 4000, "x" * 511, "\ud800" * 900])
def test_long_messages_are_cut_and_still_whole_records(tmp_path: Path, text: str) -> None:
    kept = EventLog(str(tmp_path / "ring"))
    log.handlers[:] = [kept]  # pytest-xdist cannot send a captured log with a lone surrogate
    say("gone", text, port=1, reason=text)
    before = everything(kept)
    assert str(before[0]["message"]).endswith("…")
    kept.end(keep=True)
    again = EventLog(str(tmp_path / "ring"))
    assert [event["port"] for event in everything(again)] == [1]
    again.end(keep=False)


@pytest.mark.parametrize("what", ["directory", "symlink", "other"])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, what: str) -> None:
    path, elsewhere = tmp_path / "ring", tmp_path / "elsewhere"
    elsewhere.write_text("")  # as long as a file that is to be filled
    if what == "directory":
        path.mkdir()
    elif what == "symlink":
        os.symlink(elsewhere, path)
    else:
        path.write_text("precious")
    kept = EventLog(str(path))
    say("gone", "kept in memory")
    messages = [str(event["message"]) for event in everything(kept)]
    assert messages[0].startswith("events will not outlive this supervisor")
    assert messages[1] == "kept in memory"
    kept.end(keep=False)
    assert elsewhere.read_text() == ""
    assert path.exists()
    assert what != "other" or path.read_text() == "precious"


def test_since_leaves_out_older_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = EventLog(str(tmp_path / "ring"))
    for at in (100.0, 200.0, 300.0):
        monkeypatch.setattr("logging.time.time", lambda at=at: at)
        monkeypatch.setattr("logging.time.time_ns", lambda at=at: int(at * 1e9), raising=False)
        say("gone", f"at {at:g}")
    monkeypatch.setattr(events.time, "time", lambda: 310.0)
    assert [event["message"] for event in kept.after(0, 110.0)[0]] == ["at 200", "at 300"]
    assert kept.after(0, 5.0) == ([], kept.newest)
    kept.end(keep=False)


@pytest.mark.parametrize("clock_s", [0.001, -60.0], ids=["later", "set-back"])
def test_who_follows_gets_the_events_of_the_next_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock_s: float
) -> None:
    """They have as many events, which would have the same numbers."""
    began = time.time_ns()
    monkeypatch.setattr(events.time, "time_ns", lambda: began)
    kept = EventLog(str(tmp_path / "ring"))
    say("ready", "the first switch")
    (first,), after = kept.after(0)
    assert kept.after(after) == ([], after)
    kept.end(keep=False)
    monkeypatch.setattr(events.time, "time_ns", lambda: began + int(clock_s * 1e9))
    kept = EventLog(str(tmp_path / "ring"))
    say("ready", "the next switch")
    found, after = kept.after(after)
    assert [event["message"] for event in found] == ["the next switch"] != [first["message"]]
    assert kept.after(after) == ([], after)
    kept.end(keep=False)


def test_a_throttled_line_says_how_many_it_stands_for(tmp_path: Path) -> None:
    kept, throttle = EventLog(str(tmp_path / "ring")), Throttle()
    for _ in range(5):
        throttle.warning("guard", "a guard drops", "guard", port=2)
    throttle._next.clear()
    throttle.warning("guard", "a guard drops", "guard", port=2)
    assert [event.get("more") for event in everything(kept)] == [None, 4]
    kept.end(keep=False)

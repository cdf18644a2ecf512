"""What each port did in the last hour, kept in a file that outlives the supervisor."""

import os
import struct

import pytest

from forwarder import _core
from supervisor.console import history
from supervisor.console.history import FIGURES, NAMES, ROWS, VALUES, History
from supervisor.console.lost_frames import LostFrames

PORT, BORN = 3, 77
FRAMES = FIGURES["rx_frames"]


def counters(frames, turns=0):
    values = dict.fromkeys(NAMES, 0) | {"rx_frames": frames, "turns": turns, "storm": frames // 10}
    return struct.pack(f"={len(NAMES)}Q", *values.values())


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / history.FILE)


@pytest.fixture
def kept(path):
    made = History(path, inherit=False)
    made.arrive(PORT, BORN)
    yield made
    made.end(keep=False)


def test_names_are_those_of_a_page():
    page = _core.stats_page_create()
    assert tuple(_core.StatsPage(page).counters()) == NAMES
    assert len(_core.StatsPage(page).snapshot()) == 8 * len(NAMES)
    os.close(page)


def test_the_last_minute_has_a_value_a_second(kept):
    for second in range(100):
        kept.note(PORT, counters(second * second), 0, 1000.0 + second)
    values = kept.values(PORT, "minute", 1099.0, FRAMES)
    assert values == [2 * second - 1 for second in range(40, 100)]


def test_the_last_hour_has_a_value_a_minute_and_the_minute_that_has_begun(kept):
    for second in range(90 * 60):
        kept.note(PORT, counters(10 * second), 0, 1000.0 + second)
    values = kept.values(PORT, "hour", 1000.0 + 90 * 60 - 1, FRAMES)
    assert len(values) == VALUES
    assert set(values[:-1]) == {600}
    assert sum(values[-5:]) > 2400


def test_a_port_that_was_idle_did_nothing_and_one_that_is_new_is_not_known(kept):
    kept.note(PORT, counters(700), 0, 1000.0)
    for second in range(1, 300):
        kept.note(PORT, counters(700, turns=second), 0, 1000.0 + second)
    assert kept.values(PORT, "minute", 1299.0, FRAMES) == [0] * VALUES
    hour = kept.values(PORT, "hour", 1299.0, FRAMES)
    assert hour[:-5] == [None] * (VALUES - 5)
    assert hour[-4:] == [0] * 4


def test_drops_add_up_and_lost_frames_are_among_them(kept):
    kept.note(PORT, counters(0), 0, 1000.0)
    kept.note(PORT, counters(30), 5, 1001.0)
    assert kept.values(PORT, "minute", 1001.0, FIGURES["drops"])[-1] == 3 + 5


@pytest.mark.parametrize(("when", "frames"), [(1099.0, 99), (1050.5, 50), (1000.0, 0), (999.0, None)])
def test_what_had_been_counted_at_a_time(kept, when, frames):
    for second in range(100):
        kept.note(PORT, counters(second), 0, 1000.0 + second)
    found = kept.at(PORT, when)
    assert (found and FRAMES(found)) == frames


def test_beyond_the_minute_it_is_as_exact_as_a_minute(kept):
    for second in range(1800):
        kept.note(PORT, counters(second), 0, 1000.0 + second)
    found = kept.at(PORT, 1600.0)
    assert 540 <= FRAMES(found) <= 600


def test_a_successor_goes_on_and_another_port_of_that_number_begins_anew(kept, path):
    for second in range(ROWS + 5):
        kept.note(PORT, counters(second), 0, 1000.0 + second)
    successor = History(path, inherit=True)  # of one that was killed: nothing was closed
    successor.arrive(PORT, BORN)
    successor.note(PORT, counters(100), 0, 1080.0)
    assert sum(filter(None, successor.values(PORT, "minute", 1080.0, FRAMES))) == 100 - 20
    assert FRAMES(successor.at(PORT, 1040.0)) == 40
    successor.depart(PORT)
    successor.arrive(PORT, BORN + 1)
    assert successor.values(PORT, "minute", 1080.0, FRAMES) == [None] * VALUES
    successor.end(keep=True)
    stranger = History(path, inherit=False)
    stranger.arrive(PORT, BORN + 1)
    assert stranger.at(PORT, 2000.0) is None
    stranger.end(keep=False)
    assert not os.path.exists(path)


def test_a_row_that_a_kill_has_cut_off_is_none(kept):
    for second in range(3):
        kept.note(PORT, counters(second), 0, 1000.0 + second)
    offset = history._offset(PORT, history.SECOND, 2)
    os.pwrite(kept._file, bytes(8), offset)  # as it is while a row is written
    assert FRAMES(kept.at(PORT, 1500.0)) == 1


@pytest.mark.parametrize("kind", ["directory", "link", "other size"])
def test_a_file_that_is_none_of_ours_costs_the_history_only(path, kind):
    if kind == "directory":
        os.mkdir(path)
    elif kind == "link":
        os.symlink("/etc/passwd", path)
    else:
        with open(path, "wb") as file:
            file.write(b"mine")
    kept = History(path, inherit=False)
    kept.arrive(PORT, BORN)
    kept.note(PORT, counters(1), 0, 1000.0)
    assert kept.values(PORT, "minute", 1001.0, FRAMES) == [None] * VALUES
    assert kept.at(PORT, 1001.0) is None
    kept.end(keep=False)
    assert os.path.lexists(path)


def test_a_full_disk_costs_the_history_only(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    kept = History(path, inherit=False)
    kept.arrive(PORT, BORN)
    kept.note(PORT, counters(1), 0, 1000.0)
    assert kept.at(PORT, 1001.0) is None
    kept.end(keep=False)


def test_an_unknown_port_has_no_history(kept):
    assert kept.values(9, "minute", 1000.0, FRAMES) == [None] * VALUES
    kept.note(9, counters(1), 0, 1000.0)


def test_losses_are_added_up_source_by_source():
    losses = LostFrames()
    losses.told(1, [(2, 7, 100, 0), (3, 8, 0, 5)])
    losses.told(4, [(2, 7, 11, 0), (2, 6, 9, 0)])
    assert (losses.towards(2, 7), losses.towards(2, 6), losses.towards(3, 8)) == (111, 9, 0)
    losses.told(1, [(2, 7, 130, 0)])
    assert losses.towards(2, 7) == 141
    losses.depart(4)
    losses.depart(9)
    assert (losses.towards(2, 7), losses.towards(2, 6)) == (130, 0)

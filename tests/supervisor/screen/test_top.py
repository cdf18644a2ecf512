"""The live table: rates from two answers, columns that fit, and an end on every way out."""

import io
import os
import pty
import subprocess
import sys
import textwrap
import time

import pytest
from rich.console import Console

from supervisor.screen import rates, top
from supervisor.screen.keys import FIRST, SORTS, ordered, press, split
from supervisor.screen.rates import Rates, Trail
from tests.helpers.answers import answer, port, text
from tests.helpers.guests.waiting import PATIENCE


def counted(frames, number=1, since=100.0, dropped=0, **changes):
    traffic = {"frames": frames, "bytes": 1000 * frames}
    drops = dict.fromkeys(port()["drops"], 0) | {"egress_full": dropped}
    return port(number, f"qemu-{number}", rx=traffic, tx=traffic, since_s=since, drops=drops, **changes)


def test_rates_are_differences_over_the_supervisors_own_time():
    before = answer(counted(100), uptime_s=10.0)
    after = answer(counted(200, since=102.0, dropped=6), uptime_s=12.0)
    ((_, rate),) = rates.changes(before, after)
    assert rate == Rates(50, 400_000, 50, 400_000, 3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, answer(counted(5), uptime_s=10.0)),
        (answer(uptime_s=9.0), answer(counted(5), uptime_s=10.0)),
        (answer(counted(100), uptime_s=9.0), answer(counted(5, since=0.5), uptime_s=10.0)),
        (answer(counted(100), uptime_s=9.0, epoch="1"), answer(counted(105), uptime_s=10.0, epoch="2")),
        (answer(counted(100), uptime_s=10.0), answer(counted(105), uptime_s=10.0)),
    ],
    ids=["first answer", "new port", "new port, old number", "new supervisor", "same moment"],
)
def test_without_a_comparable_earlier_reading_there_is_no_rate(before, after):
    ((_, rate),) = rates.changes(before, after)
    assert rate is None


def test_a_sum_leaves_out_unknown_figures():
    assert rates.total([Rates(1, 2, 3, 4, 5), None, Rates(1, 1, 1, 1, 1)]) == Rates(2, 3, 4, 5, 6)
    assert rates.total([None]) == Rates(0, 0, 0, 0, 0)


def test_a_trace_is_bounded_and_belongs_to_its_port():
    trail = Trail()
    for second in range(rates.TRACE + 5):
        rows = trail.follow(answer(counted(second * 10), uptime_s=10.0 + second))
    assert rows[0].trace == "█" * rates.TRACE
    (row,) = trail.follow(answer(counted(0, since=0.1), uptime_s=11.0 + second))
    assert row.trace == ""


def test_bars_are_to_scale_and_only_silence_is_empty():
    assert rates.trace([0, 1, 50, 100], 100) == " ▁▅█"
    assert rates.trace([], 0) == ""


def shown(width, *ports):
    trail = Trail()
    trail.follow(answer(*ports, uptime_s=1.0))
    current = answer(*ports, uptime_s=2.0)
    return text(top.screen(current, trail.follow(current), width), width)


@pytest.mark.parametrize("width", [64, 80, 100, 120, 150, 200])
def test_shown_columns_are_never_cut(width):
    lines = shown(width, counted(10**9), counted(5, 2, stalled=True), counted(5, 3))
    assert "…" not in lines
    for heading in ("port", "name", "state", "drops/s", "queue", "CPU %"):
        assert heading in lines
    assert "stalled: qemu-2" in lines
    assert all(len(line) <= width for line in lines.splitlines())


def test_a_wide_terminal_shows_more():
    assert "restarts" not in shown(80, counted(5))
    assert "restarts" in shown(200, counted(5))


def test_a_switch_without_ports_is_shown_by_a_sentence():
    assert "no ports yet" in shown(80)


def nothing(span, number):
    return []


def answers():
    for second in range(1, 100):
        yield answer(counted(second), uptime_s=float(second))


def test_without_a_terminal_there_is_one_table_with_rates():
    feed = answers()
    console = Console(file=io.StringIO(), width=120)
    top.run(lambda: next(feed), nothing, interval=0, console=console)
    printed = console.file.getvalue()
    assert printed.count("Bulkhead") == 1
    assert next(feed)["uptime_s"] == 3.0


def test_an_error_while_fetching_passes_through():
    def refused():
        raise ConnectionError("nobody answers")

    with pytest.raises(ConnectionError):
        top.run(refused, nothing, console=Console(file=io.StringIO()))


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_on_a_terminal_a_key_ends_it_and_the_terminal_is_as_before(key):
    program = textwrap.dedent(
        """
        import fcntl, termios
        from supervisor.screen import top
        from tests.supervisor.screen.test_top import answers
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C means what it means there
        feed = answers()
        top.run(lambda: next(feed), lambda span, port: [], interval=0.05)
        print("ended well")
        """
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
    )
    os.close(theirs)
    seen, deadline, told = b"", time.monotonic() + PATIENCE, False
    try:
        while time.monotonic() < deadline:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
            if b"qemu-1" in seen and not told:
                told = True
                os.write(ours, key)
        assert process.wait(PATIENCE) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"\x1b[?1049h" in seen  # it drew on a screen of its own
    assert seen.index(b"\x1b[?1049l") < seen.index(b"ended well")  # and gave the first one back


def crowd(count):
    ports = [counted(number, number) for number in range(1, count + 1)]
    trail = Trail()
    trail.follow(answer(*ports, uptime_s=1.0))
    current = answer(*[counted(2 * number, number) for number in range(1, count + 1)], uptime_s=2.0)
    return current, trail.follow(current)


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 9), (80, 14), (80, 24), (80, 60)])
def test_250_ports_fit_the_terminal_around_the_chosen_one(width, height):
    current, rows = crowd(250)
    for chosen in (0, 1, 128, 250):
        drawn = text(top.screen(current, rows, width, FIRST._replace(port=chosen), height), width)
        assert len(drawn.splitlines()) <= height
        assert f" qemu-{chosen or 1} " in drawn
        assert "of 250" in drawn


def test_many_stalled_ports_are_counted_in_the_head():
    ports = [counted(1, number, stalled=True) for number in range(1, 101)]
    drawn = text(top.screen(answer(*ports), Trail().follow(answer(*ports)), 80), 80)
    assert "and 95 more" in drawn


def test_keys_sort_and_turn_the_order():
    _, rows = crowd(5)
    view = press(FIRST, "i", rows)
    assert [row.port["port"] for row in ordered(view, rows)] == [5, 4, 3, 2, 1]
    view = press(view, "i", rows)
    assert [row.port["port"] for row in ordered(view, rows)] == [1, 2, 3, 4, 5]
    assert press(view, "n", rows) == FIRST._replace(sort="n")
    for key in SORTS:
        assert len(ordered(press(FIRST, key, rows), rows)) == 5


def test_keys_choose_a_port_show_it_and_go_back():
    _, rows = crowd(3)
    view = FIRST
    for key in ("j", "\x1b[B", "\x1b[B", "k"):
        view = press(view, key, rows)
    assert view.port == 2
    view = press(view, "\r", rows)
    assert view.detail
    assert not press(view, "\x1b", rows).detail
    assert press(press(view, "?", rows), "x", rows) == view
    assert press(view, "\x00", rows) == view
    assert not press(FIRST, "\r", []).detail


def test_keys_of_a_terminal_are_taken_apart():
    assert list(split(b"i\x1b[Aq\xff?")) == ["i", "\x1b[A", "q", "?"]


def test_a_trace_begins_with_what_the_history_knows():
    trail = Trail()
    past = {"port": 1, "seconds": 1.0, "rx_bytes": [None, 0, 10], "tx_bytes": [None, 0, 10]}
    trail.remember([past])
    (row,) = trail.follow(answer(counted(5)))
    assert row.trace == " █"


def test_one_port_in_detail_has_bars_of_its_minute_and_hour():
    figures = {"rx_bytes": [None] * 30 + [131] * 30, "tx_bytes": [0] * 60, "drops": [1] * 60}
    spans = {span: {"seconds": 1.0, **figures} for span in ("minute", "hour")}
    (row,) = Trail().follow(answer(counted(5, dropped=7)))
    drawn = text(top.detail(row, spans, 100), 100)
    assert drawn.count("·" * 30 + "█" * 30) == 2
    assert "drops, last hour" in drawn
    assert "1.05 kbit/s" in drawn
    for width in (80, 81, 100):
        assert not any(
            line.startswith("kbit") for line in text(top.detail(row, spans, width), width).split("\n")
        )
    assert "drops egress_full      7" in drawn
    assert "…" not in text(top.detail(row, {"minute": None, "hour": None}, 60), 60)

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

from supervisor.screen import top
from supervisor.screen.top import Rates, Trail
from tests.helpers.answers import answer, port, text


def counted(frames, number=1, since=100.0, dropped=0, **changes):
    traffic = {"frames": frames, "bytes": 1000 * frames}
    drops = dict.fromkeys(port()["drops"], 0) | {"egress_full": dropped}
    return port(number, f"qemu-{number}", rx=traffic, tx=traffic, since_s=since, drops=drops, **changes)


def test_rates_are_differences_over_the_supervisors_own_time():
    before = answer(counted(100), uptime_s=10.0)
    after = answer(counted(200, since=102.0, dropped=6), uptime_s=12.0)
    ((_, rates),) = top.changes(before, after)
    assert rates == Rates(50, 400_000, 50, 400_000, 3)


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
    ((_, rates),) = top.changes(before, after)
    assert rates is None


def test_a_sum_leaves_out_unknown_figures():
    assert top.total([Rates(1, 2, 3, 4, 5), None, Rates(1, 1, 1, 1, 1)]) == Rates(2, 3, 4, 5, 6)
    assert top.total([None]) == Rates(0, 0, 0, 0, 0)


def test_a_trace_is_bounded_and_belongs_to_its_port():
    trail = Trail()
    for second in range(top.TRACE + 5):
        rows = trail.follow(answer(counted(second * 10), uptime_s=10.0 + second))
    assert rows[0].trace == "█" * top.TRACE
    (row,) = trail.follow(answer(counted(0, since=0.1), uptime_s=11.0 + second))
    assert row.trace == ""


def test_bars_are_to_scale_and_only_silence_is_empty():
    assert top.trace([0, 1, 50, 100], 100) == " ▁▅█"
    assert top.trace([], 0) == ""


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


def answers():
    for second in range(1, 100):
        yield answer(counted(second), uptime_s=float(second))


def test_without_a_terminal_there_is_one_table_with_rates():
    feed = answers()
    console = Console(file=io.StringIO(), width=120)
    top.run(lambda: next(feed), interval=0, console=console)
    printed = console.file.getvalue()
    assert printed.count("Bulkhead") == 1
    assert next(feed)["uptime_s"] == 3.0


def test_an_error_while_fetching_passes_through():
    def refused():
        raise ConnectionError("nobody answers")

    with pytest.raises(ConnectionError):
        top.run(refused, console=Console(file=io.StringIO()))


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_on_a_terminal_a_key_ends_it_and_the_terminal_is_as_before(key):
    program = textwrap.dedent(
        """
        import fcntl, termios
        from supervisor.screen import top
        from tests.supervisor.screen.test_top import answers
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C means what it means there
        feed = answers()
        top.run(lambda: next(feed), interval=0.05)
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
    seen, deadline, told = b"", time.monotonic() + 30, False
    try:
        while time.monotonic() < deadline:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
            if b"qemu-1" in seen and not told:
                told = True
                os.write(ours, key)
        assert process.wait(10) == 0, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"\x1b[?1049h" in seen  # it drew on a screen of its own
    assert seen.index(b"\x1b[?1049l") < seen.index(b"ended well")  # and gave the first one back

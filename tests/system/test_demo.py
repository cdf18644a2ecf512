"""The demonstration as a newcomer runs it: a real switch, four fake VMs, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.guests.waiting import wait_for


def start(tmp_path, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "bulkhead", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )


def left_behind(tmp_path):
    """Processes that have the directory among their words, and files in it."""
    found = [str(path) for path in tmp_path.rglob("*")]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(tmp_path) in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


def demonstrate(tmp_path):
    """Run it; return what it printed. Where the machine's pace changed meanwhile, which is a verdict, too,
    run it again, twice at most."""
    for _ in range(3):
        process = start(tmp_path, "--seconds", "12")
        output, errors = process.communicate(timeout=100)
        shown = output.decode()
        text = " ".join(shown.split())
        paced = re.search(r"Failed: (their rate|the [a-z0-9 ]+ of their latency)[^;]*\.$", text)
        if not paced:
            break
    assert process.returncode == 0, shown + errors.decode()
    return shown


def test_only_the_stuck_vm_is_affected(tmp_path):
    shown = demonstrate(tmp_path)
    assert "Only dave was affected." in shown
    assert "alice 0, bob 0, carol 0, dave " in shown
    lines = [line for line in shown.splitlines() if "round trips/s  p50" in line]
    assert 3 <= len(lines) <= 13
    assert any("dave stalled" in line for line in lines)
    assert "dave live" in lines[-1]
    assert "\x1b" not in shown
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path, number):
    process = start(tmp_path, "--runtime-dir", str(tmp_path / "here"))
    try:
        seen = b""
        while b" s  " not in seen:  # the first line of figures: everything runs
            more = os.read(process.stdout.fileno(), 4096)
            assert more, process.stderr.read().decode()
            seen += more
        assert len(left_behind(tmp_path)) >= 4
        assert (tmp_path / "here" / "supervisor.lock").exists()
        process.send_signal(number)
        process.send_signal(signal.SIGTERM)  # an impatient user
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"Traceback" not in errors
        wait_for(lambda: not left_behind(tmp_path), "the spare workers to end, by themselves", timeout=60)
    finally:
        process.kill()
        process.wait()


def test_a_switch_that_does_not_start_fails_with_one_line(tmp_path):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    process = start(deep)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert len(errors.decode().strip().splitlines()) == 1
    assert "too long" in errors.decode()
    assert left_behind(deep) == []

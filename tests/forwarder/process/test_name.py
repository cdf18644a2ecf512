"""The name and the command line that ps(1) shows of a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = r"""
import sys
from pathlib import Path
from forwarder.process.name import rename, rewrite_command_line
WORDS = "python", "-m", "gateway.inside"
before = rename("another")
rewrite_command_line(*WORDS * int(sys.argv[1]))
line = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0")
print(before, Path("/proc/self/comm").read_text().strip(), line.split(b"\0"))
"""
SHOWN = [b"python", b"-m", b"gateway.inside"]


@pytest.mark.parametrize("times", [1, 1000], ids=["fits", "too-long"])
def test_a_process_shows_other_words(times: int) -> None:
    """Words that do not fit leave the command line as it is."""
    program = [sys.executable, "-c", PROGRAM, str(times)]
    root = Path(__file__).parents[3]
    done = subprocess.run(program, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    before, name, shown = done.stdout.strip().split(" ", 2)
    assert name == "another" != before
    assert shown == repr(SHOWN if times == 1 else [each.encode() for each in program])

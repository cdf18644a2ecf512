"""spin checks every interleaving of the ring and its sleep protocol, and each rule that is taken out is
missed."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers.guests.requirements import require

MODEL = Path(__file__).parent / "models" / "ring_sleep.pml"
RULES = ("RELEASE_HEAD", "RELEASE_TAIL", "FENCE_PRODUCER", "FENCE_CONSUMER")


def search(directory, *without):
    """Errors that an exhaustive search finds in the model, less some of its rules."""
    defines = [f"-D{rule}=0" for rule in without]
    for command in (
        ["spin", *defines, "-a", str(MODEL)],
        ["cc", "-O2", "-DSAFETY", "-o", "pan", "pan.c"],
        ["./pan", "-m100000"],
    ):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "max search depth too small" not in done.stdout
    errors = re.search(r"errors: (\d+)", done.stdout)
    assert errors, done.stdout
    return int(errors[1])


@pytest.fixture(autouse=True)
def _spin():
    require(["spin"])


def test_no_wake_up_and_no_byte_is_lost(tmp_path):
    assert search(tmp_path) == 0


@pytest.mark.parametrize("rule", RULES)
def test_without_any_one_rule_the_search_finds_a_fault(tmp_path, rule):
    assert search(tmp_path, rule) > 0

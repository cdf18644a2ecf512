"""A bounded run of every fuzz target; ``scripts/fuzz`` is the same for longer."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers.guests.requirements import require

SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz"
SECONDS = 2


@pytest.mark.timeout(600)  # the first one compiles the core
@pytest.mark.parametrize(
    "target",
    [
        *("stream", "framing", "offload", "coalesce", "claim", "datagrams", "vhost", "ring", "flood"),
        *("engine", "wire"),
    ],
)
def test_nothing_is_found(target):
    if target != "wire":
        require(["clang"])
    done = subprocess.run(
        [SCRIPT, "--seconds", str(SECONDS), target], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

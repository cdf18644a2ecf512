"""The soft limit of descriptors goes up as far as it may and as far as is wanted, never down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from forwarder.process.descriptors import raise_descriptor_limit
soft, hard, wanted = (int(word) or None for word in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
raise_descriptor_limit(wanted)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "after"),
    [(100, 400, 0, 400), (100, 400, 300, 300), (100, 400, 900, 400), (200, 400, 150, 200)],
)
def test_the_limit_is_raised(soft: int, hard: int, wanted: int, after: int) -> None:
    root = Path(__file__).parents[3]
    program = [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(wanted)]
    done = subprocess.run(program, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == after

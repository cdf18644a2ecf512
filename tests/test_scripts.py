"""The scripts explain themselves, and do so without setting anything up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("scripts/run", "scripts/test", "scripts/sanitize", ".ci/run")


def _run(script: str, argument: str) -> subprocess.CompletedProcess[str]:
    # With no Python to make an environment with, setting up would fail.
    return subprocess.run(
        [ROOT / script, argument],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/nonexistent"},
    )


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(script: str, flag: str) -> None:
    done = _run(script, flag)
    assert done.returncode == 0, done.stderr
    assert script in done.stdout
    assert "set -euo" not in done.stdout


def test_sanitize_names_the_part_that_does_not_exist() -> None:
    done = _run("scripts/sanitize", "everything")
    assert done.returncode == 1
    assert done.stderr == "sanitize: there is no part 'everything': python or native\n"


def test_a_missing_interpreter_of_scripts_run_is_named() -> None:
    done = subprocess.run(
        [ROOT / "scripts/run", "status"], capture_output=True, text=True, timeout=30, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": "python9.9"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "run: no such program: python9.9; name another interpreter in PYTHON\n"

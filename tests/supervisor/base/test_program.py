"""The command line of our own packages, and how a process ended in words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from supervisor.base.program import command, how_it_ended


def test_a_package_of_this_tree_needs_nothing_around_it() -> None:
    argv, environment = command("workers", "/run/x")
    assert argv[0] == sys.executable
    assert argv[-3:] == ["-m", "workers", "/run/x"]
    done = subprocess.run(
        [*argv[:-3], "-c", "import workers, forwarder; print('found')"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "found\n"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (0, "ended with 0"),
        (3, "ended with 3"),
        (-9, "was ended by SIGKILL"),
        (-64, "was ended by SIGRTMAX"),
        (-50, "was ended by signal 50"),
        (
            -6,
            "was ended by SIGABRT, as ZeroMQ does for lack of threads or descriptors; raise their limits "
            "(ulimit -u, -n)",
        ),
    ],
)
def test_how_a_process_ended(code: int, how: str) -> None:
    assert how_it_ended(code) == how

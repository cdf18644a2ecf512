"""Make the command line of a process of our packages, and describe how it ended."""

import os
import signal
import site
import sys
from contextlib import suppress
from pathlib import Path

import forwarder


def command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return argument list and environment of a process that is one of our packages.

    If the packages are installed, no other path can add modules (``-I``). In a source tree, their directory
    must be named. Threads share one heap (``MALLOC_ARENA_MAX``): ZeroMQ's need no others.
    """
    root = str(Path(forwarder.__file__).resolve().parents[1])
    installed = root in [str(Path(each).resolve()) for each in site.getsitepackages()]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    if not installed:
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{inherited}" if inherited else root
    return [sys.executable, *(["-I"] if installed else []), "-m", module, *arguments], environment


def how_it_ended(code: int) -> str:
    """Return how a process has ended; ``code``: its exit status, or less than zero the signal's number."""
    if code >= 0:
        return f"ended with {code}"
    if code == -signal.SIGABRT:
        return (
            "was ended by SIGABRT, as ZeroMQ does for lack of threads or descriptors; raise their limits "
            "(ulimit -u, -n)"
        )
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"

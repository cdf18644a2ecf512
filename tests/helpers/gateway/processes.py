"""The two processes of a switch's gateway, found by what ps(1) shows of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.helpers.guests.switch import Switch


def processes(switch: Switch, what: str) -> list[int]:
    """Return the pids of ``gateway`` or ``gateway.inside``, a fork of it with a command line of its own."""
    found = []
    for pid in switch.processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if what.encode() in words[1:4]:
                found.append(pid)
    return found


def process(switch: Switch, what: str) -> int:
    """Return the pid of ``gateway`` or ``gateway.inside``; 0 if there is none."""
    return next(iter(processes(switch, what)), 0)

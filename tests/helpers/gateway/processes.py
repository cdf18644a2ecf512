"""The two processes of a switch's gateway, found by what ps(1) shows of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from gateway.namespace_process import NAME
from tests.helpers.guests.switch import Switch


def processes(switch: Switch, what: str) -> list[int]:
    """Return the pids of ``gateway`` or ``gateway.inside``, a fork of it with a name of its own."""
    found = []
    for pid in switch.processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if b"gateway" in words[1:4] and (name == NAME) == (what == "gateway.inside"):
                found.append(pid)
    return found


def process(switch: Switch, what: str) -> int:
    """Return the pid of ``gateway`` or ``gateway.inside``; 0 if there is none."""
    return next(iter(processes(switch, what)), 0)

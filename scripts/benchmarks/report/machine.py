"""Where a benchmark ran: the machine, the versions of what took part, and how our core was built."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from forwarder import _core

ROOT = Path(__file__).resolve().parents[3]
DISTRIBUTIONS = ("bulkhead-switch", "pyzmq", "msgpack", "psutil")
PROGRAMS = {"iperf3": "--version", "vde_switch": "--version", "perf": "--version", "cc": "--version"}
_PRODUCER = re.compile(rb"(?:GNU C|clang version )[^\0]{8,}")
"""How a compiler signs its debugging information: its version and, of GCC, all flags."""


def machine() -> dict[str, Any]:
    """Describe this machine."""
    versions: dict[str, str | None] = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    versions |= {name: _first_line(name, flag) for name, flag in PROGRAMS.items()}
    return {
        "cpu": _value("/proc/cpuinfo", "model name"),
        "cores": cores(),
        "memory": _value("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()} {platform.version()}",
        "load_after": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
        "core": core(),
        "commit": _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
    }


def cores() -> int:
    """Return how many there are for us."""
    return len(os.sched_getaffinity(0))


def core() -> dict[str, Any]:
    """Describe the compiled core: what is in its file, not what the tree around it says."""
    binary = Path(str(_core.__file__)).read_bytes()
    built = sorted({match.decode(errors="replace") for match in _PRODUCER.findall(binary)})
    return {
        "path": _core.__file__,
        "layout": _core.LAYOUT,
        "sha256": hashlib.sha256(binary).hexdigest(),
        "built": built or None,  # stripped: unknown
    }


def _value(path: str, key: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return None


def _first_line(*words: str) -> str | None:
    """Return the first line that a program prints, or None if there is no such program or it fails."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=10, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next((line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()), None)

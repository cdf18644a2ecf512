"""Read the resources of processes from /proc, without disturbing them during a run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

KIB = 1024


def cpu_ns(pids: Iterable[int]) -> int:
    """Return the CPU time of these processes so far, all threads together, in nanoseconds.

    A thread that has ended is no longer counted. Raises OSError if a process has gone.
    """
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def switches(pids: Iterable[int]) -> int:
    """Return how often these processes were put on a CPU so far, all threads together."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[2])
    return total


def memory(pid: int) -> tuple[int | None, int]:
    """Return a process's PSS (None where the kernel does not say) and RSS, in bytes."""
    pss = None
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                pss = int(line.split()[1]) * KIB
    except PermissionError:
        pass
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pss, pages * os.sysconf("SC_PAGE_SIZE")


def private(pid: int) -> int:
    """Return a process's private memory, in bytes: without files and shared memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * KIB
    raise ProcessLookupError(pid)


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))

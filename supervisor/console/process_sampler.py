"""Sample what processes cost: CPU, memory, descriptors.

A process is (pid, start time). The psutil object is cached by that identity, checked before each use (another
process may have the pid by now) and dropped when its process is not shown any more.

CPU per cent is the use since an earlier sample; for the first sample, since the process began. The kernel
counts in ticks of 10 ms, so two observers that ask shortly after each other would read noise. So the baseline
sample is replaced only once it is ``BASELINE_S`` old.
"""

import os
import re
import time
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, NamedTuple

from forwarder.names import Identity
from supervisor.base.proc import start_time
from supervisor.console.readings import Usage

if TYPE_CHECKING:
    import psutil

BASELINE_S = 0.25
_PSS = re.compile(rb"^Pss: +([0-9]{1,12}) kB$", re.MULTILINE)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class _Watched(NamedTuple):
    """One sampled process: psutil's handle and the baseline of its CPU use."""

    process: "psutil.Process"
    then: float
    cpu_seconds: float


class _Proc(NamedTuple):
    """Files of a worker's own /proc, opened before its cell closed them to all but root."""

    smaps: int
    fds: int


class ProcessSampler:
    """CPU, memory and descriptors of processes, by identity."""

    def __init__(self) -> None:
        self._watched: dict[Identity, _Watched] = {}
        self._proc: dict[Identity, _Proc] = {}

    def meet(self, identity: Identity, proc: tuple[int, ...]) -> None:
        """Keep descriptors of a process's ``smaps_rollup`` and ``fd``, which only root could open later."""
        self.part(identity)
        self._proc[identity] = _Proc(*proc)

    def part(self, identity: Identity) -> None:
        """Close the kept descriptors of a process that has ended."""
        kept = self._proc.pop(identity, None)
        if kept is not None:
            os.close(kept.smaps)
            os.close(kept.fds)

    def sample(
        self, identities: Iterable[Identity], now: float, weighed: Container[Identity] | None = None
    ) -> dict[Identity, Usage]:
        """Return the usage of those that still run; drop the cache of all others.

        ``now``: monotonic seconds. ``weighed``: whose PSS is wanted, which costs most; None: all.
        """
        import psutil  # noqa: PLC0415 - a switch needs it only when an operator asks

        found: dict[Identity, Usage] = {}
        watched: dict[Identity, _Watched] = {}
        for identity in identities:
            try:
                known = self._watched.get(identity) or _open(identity, now)
                if not known.process.is_running():
                    continue
                usage, watched[identity] = _measure(known, self._proc.get(identity), now)
                if weighed is None or identity in weighed:
                    usage = usage._replace(pss_bytes=self._weigh(known, identity))
                found[identity] = usage
            except (psutil.Error, OSError):
                continue  # it ended meanwhile, or we may not read it
        self._watched = watched
        return found

    def _weigh(self, known: _Watched, identity: Identity) -> int | None:
        proc = self._proc.get(identity)
        return _pss(known.process) if proc is None else _pss_of(proc.smaps)


def _open(identity: Identity, now: float) -> _Watched:
    """Open exactly this process; raises ``psutil.NoSuchProcess`` if another one has its pid now."""
    import psutil  # noqa: PLC0415

    process = psutil.Process(identity.pid)
    start = start_time(identity.pid)
    if start != identity.start:
        raise psutil.NoSuchProcess(identity.pid)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - start / _TICKS_PER_S
    return _Watched(process, now - age, 0.0)


def _measure(known: _Watched, proc: _Proc | None, now: float) -> tuple[Usage, _Watched]:
    """Return one reading, and the baseline of the next one."""
    with known.process.oneshot():
        times = known.process.cpu_times()
        switches = known.process.num_ctx_switches()
        memory = known.process.memory_info()
        threads = known.process.num_threads()
        fds = _fds(known.process) if proc is None else _count(proc.fds)
    used = times.user + times.system
    elapsed = now - known.then
    percent = 100 * (used - known.cpu_seconds) / elapsed if elapsed > 0 else 0.0
    usage = Usage(
        cpu_percent=round(percent, 1),
        cpu_seconds=round(used, 3),
        rss_bytes=memory.rss,
        pss_bytes=None,
        threads=threads,
        fds=fds,
        ctx_switches=switches.voluntary + switches.involuntary,
    )
    return usage, known if elapsed < BASELINE_S else _Watched(known.process, now, used)


def _fds(process: "psutil.Process") -> int | None:
    """Return the number of descriptors; None if the kernel does not tell it to us."""
    import psutil  # noqa: PLC0415

    try:
        return process.num_fds()
    except psutil.AccessDenied:
        return None


def _pss(process: "psutil.Process") -> int | None:
    """Return the proportional share of memory; None if the kernel does not tell it to us."""
    import psutil  # noqa: PLC0415

    try:
        return getattr(process.memory_full_info(), "pss", None) or None
    except psutil.AccessDenied:
        return None


def _count(fds: int) -> int:
    """Count the entries of an open ``/proc/PID/fd``; from Linux 6.2 on its size is the number."""
    return os.fstat(fds).st_size or len(os.listdir(fds))


def _pss_of(smaps: int) -> int | None:
    """Read an open ``smaps_rollup``: the proportional share, in bytes; None if it is another file.

    A worker that was taken over brings it again, and a guest may have chosen what it brings.
    """
    found = _PSS.search(os.pread(smaps, 4096, 0))
    return None if found is None else int(found[1]) << 10

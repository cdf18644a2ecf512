"""Sample the ports' stats pages and the processes; ``stats`` makes the answers.

Theory of operation
-------------------
Processes are sampled for a question only. The stats pages of all ports are read once a second for the
history, and for each answer. No worker has to answer: its page is shared memory, and /proc belongs to the
kernel. So a worker that hangs is as visible as any other.

``arrive`` maps a port's stats page; ``depart`` reads it for the last time and folds it into ``Departed``. The
port has readings only between the two. A restarted worker keeps the page.

A process is (pid, start time). The psutil object is cached by that identity, checked before each use (another
process may have the pid by now) and dropped when its process is not shown any more.

CPU per cent is the use since an earlier sample; for the first sample, since the process began. The kernel
counts in ticks of 10 ms, so two observers that ask shortly after each other would read noise. So the baseline
sample is replaced only once it is ``BASELINE_S`` old.
"""

import os
import time
from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from forwarder import _core
from forwarder.names import Identity
from supervisor.base.proc import start_time
from supervisor.console import live, stats
from supervisor.console.history import FIGURES, MEANT, NAMES, SPANS, History, flood_lost
from supervisor.console.losses import Losses
from supervisor.console.stats import Departed, Json, Reading, Switch, Usage
from supervisor.ports.view import PortView

if TYPE_CHECKING:
    import psutil

BASELINE_S = 0.25
LOOK_S = 1.0
"""Between two looks at all pages for the history."""
MOST_LEFT = 1024
"""Ports that have left and are known one by one, for the last hour."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def address(packed: bytes) -> str:
    """Return 16 bytes of a page as an IP address; nothing if they are all zero."""
    found = IPv6Address(packed)
    return "" if not any(packed) else str(found.ipv4_mapped or found)


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
        import psutil  # noqa: PLC0415 - until somebody asks, a switch needs none of it

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
    """Read an open ``smaps_rollup``: the proportional share, in bytes."""
    for line in os.pread(smaps, 4096, 0).split(b"\n"):
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) << 10
    return None


class Sampler:
    """The operator's view of the switch, sampled for each question."""

    def __init__(self, history: History) -> None:
        self._blocks: dict[int, tuple[int, _core.StatsPage]] = {}
        self._processes = ProcessSampler()
        self._departed = Departed()
        self._talks = live.Talks()
        self._history = history
        self._due = 0.0
        self._seen: dict[int, bytes] = {}
        """What each port had counted at the last look."""
        self._last: dict[int, tuple[tuple[int, bytes], Reading]] = {}
        """By port: what it had counted at the last ``live``, and the reading of then."""
        self._losses = Losses()
        self._left: deque[tuple[float, Reading, int]] = deque(maxlen=MOST_LEFT)
        """When a port has left, and what it had counted."""

    def arrive(self, port: int, born: int, block: int) -> None:
        """Map the stats page of a port that has joined or was taken back. The caller closes the descriptor.

        Raises OSError if the page cannot be mapped, ValueError if it is of another version.
        """
        self._blocks[port] = (born, _core.StatsPage(block))
        self._history.arrive(port, born)

    def depart(self, port: int, *, of_gateway: bool = False) -> None:
        """Keep the counters of a leaving port and unmap its page. An unknown port is ignored."""
        if port in self._blocks:
            readings = self._readings()
            full = stats.egress_full(port, readings, self._departed)
            self._left.append((time.monotonic(), readings[port], full))
            self._departed.fold(port, readings, of_gateway=of_gateway)
            del self._blocks[port]
            self._history.depart(port)
            self._seen.pop(port, None)
            self._losses.depart(port)

    def tick(self, now: float) -> None:
        """Note in the history what ports have counted since the last look."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        seen = {port: page.snapshot() for port, (_, page) in self._blocks.items()}
        for port, counters in seen.items():
            if counters[:MEANT] != self._seen.get(port, b"")[:MEANT]:
                self._losses.told(port, self._blocks[port][1].losses())
        self._seen = seen
        for port, counters in seen.items():
            key = port, self._blocks[port][0]
            full = self._losses.towards(*key) + self._departed.towards.get(key, 0) + flood_lost(counters)
            self._history.note(port, counters, full, now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._due if self._blocks else float("inf")

    def meet(self, identity: Identity, proc: tuple[int, ...]) -> None:
        """Keep a worker's descriptors of its own /proc."""
        self._processes.meet(identity, proc)

    def part(self, identity: Identity) -> None:
        """Close the kept descriptors of a worker that has ended."""
        self._processes.part(identity)

    def page(self, port: int) -> _core.StatsPage | None:
        """Return the stats page of a port, to read at once and not to keep; None if it has none."""
        known = self._blocks.get(port)
        return known[1] if known else None

    def published_at(self, port: int) -> float:
        """Return when the port's worker last published, in monotonic seconds; 0.0 if it has no page."""
        known = self._blocks.get(port)
        return known[1].published_at() if known else 0.0

    def stats(
        self,
        switch: Switch,
        views: Iterable[PortView],
        now: float,
        *,
        sources: bool = False,
        weighed: Container[int] | None = None,
        since_s: float | None = None,
    ) -> Json:
        """``supervisor stats``; ``weighed``: the ports whose worker's PSS is wanted, None: all.

        With ``since_s`` what was counted in so many last seconds.
        """
        views = list(views)
        identities = [view.identity for view in views if view.identity] + [switch.identity]
        identities += [identity for _, identity in switch.others]
        heavy = None
        if weighed is not None:
            heavy = {view.identity for view in views if view.identity and view.record.port in weighed}
        usage = self._processes.sample(identities, now, heavy)
        answer = stats.stats(switch, views, self._readings(), usage, self._departed, now=now, sources=sources)
        return answer if since_s is None else self._only_since(answer, since_s, now)

    def _only_since(self, answer: Json, since_s: float, now: float) -> Json:
        when = now - since_s
        for row in answer["ports"]:
            then = self._history.at(row["port"], when)
            if then is not None:
                stats.subtract(row, dict(zip(NAMES, then.counters, strict=True)), then.full)
        left = [(reading, full) for at, reading, full in self._left if at >= when]
        return answer | {"since_s": since_s, "departed": stats.departed(left)}

    def dealings(self, ports: Collection[int], now: float) -> Json:
        """Return ``sent`` from and to some ports, and the ``questions`` of all VMs, as numbers and text."""
        born = {port: born for port, (born, _) in self._blocks.items()}
        sent = [
            {"source": port, "target": peer, "frames": frames, "age_s": now - at, "longest": longest}
            for port, (_, page) in self._blocks.items()
            for peer, attachment, frames, at, longest in page.dealings()
            if born.get(peer) == attachment and (port in ports or peer in ports)
        ]
        questions = [
            {
                "port": port,
                "sender": address(sender),
                "target": address(target),
                "times": times,
                "age_s": now - last,
            }
            for port, (_, page) in self._blocks.items()
            for sender, target, _, last, times in page.questions()
        ]
        return {"sent": sent, "questions": questions}

    def history(self, port: int, span: str, now: float) -> Json:
        """Return what a port did in the last minute or hour: its figures in each step, the newest last.

        ``seconds``: of a step. A figure is null where nothing is known.
        """
        columns = {name: self._history.values(port, span, now, pick) for name, pick in FIGURES.items()}
        return {"port": port, "seconds": SPANS[span], **columns}

    def status(
        self, switch: Switch, views: Iterable[PortView], addresses: Mapping[int, list[str]], now: float
    ) -> Json:
        """Answer ``supervisor status``; reads no process.

        ``addresses``: IP addresses by number of the port.
        """
        return stats.status(switch, views, self._readings(macs=True), addresses, now)

    def macs(self, switch: Switch, views: Iterable[PortView], now: float) -> Json:
        """Answer ``supervisor macs``; reads no process."""
        return stats.macs(switch, views, self._readings(macs=True), now)

    def live(self, switch: Switch, views: Iterable[PortView], now: float) -> Json:
        """``live``: what changes every second, in rows without names; reads no process."""
        sent = {port: block.sent() for port, (_, block) in self._blocks.items()}
        return stats.head(switch, now) | {
            "columns": live.COLUMNS,
            "ports": live.rows(views, self._lately(), self._departed),
            "talks": self._talks.rates(sent, now),
        }

    def addresses(self, views: Iterable[PortView]) -> Json:
        """Answer the gateway: the port of each MAC address."""
        return stats.addresses(views, self._readings(macs=True))

    def traffic(self, views: Iterable[PortView]) -> Json:
        """Answer the gateway: traffic of all VMs and of the gateway."""
        return stats.traffic(views, self._readings(), self._departed)

    def _lately(self) -> dict[int, Reading]:
        """Read the pages that have counted something since the last time; only turns of others are old."""
        found = {}
        for port, (born, block) in self._blocks.items():
            counted = born, block.snapshot()[:MEANT]
            known = self._last.get(port)
            if known is None or known[0] != counted:
                known = counted, Reading(born, block.counters(), block.losses(), ())
            found[port] = known
        self._last = found
        return {port: reading for port, (_, reading) in found.items()}

    def _readings(self, *, macs: bool = False) -> dict[int, Reading]:
        """Read all stats pages; their MAC tables, which may be long, only if asked for."""
        return {
            port: Reading(born, block.counters(), block.losses(), block.macs(port) if macs else ())
            for port, (born, block) in self._blocks.items()
        }

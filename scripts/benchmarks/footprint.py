"""``footprint``: the cost of idle VMs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from typing import Any

from scripts.benchmarks.lab.guests import VHOST, GuestBulkhead
from scripts.benchmarks.lab.sockets import KINDS, Bulkhead
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import proc
from scripts.benchmarks.report.figures import median, spread
from scripts.benchmarks.report.journal import Benchmark, Journal
from tests.helpers.guests.fake_vm import build_frame, mac
from tests.helpers.guests.waiting import wait_for

WORKER, SPARE, SUPERVISOR = "worker of an idle VM", "spare worker", "supervisor"
TALKING, SILENT = "worker of a VM that has talked to all", "the same, after the silence"
ROLES = (WORKER, SPARE, SUPERVISOR)
TOGETHER = "all together"
COLUMNS = (
    "process", "how many", "PSS MiB", "RSS MiB", "descriptors", "threads", "idle CPU, % of a core",
    "wake-ups/s",
)  # fmt: skip
MIB = 1 << 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--kind", choices=[*KINDS, VHOST], default="stream",
        help="of socket, or guests that share their memory (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--vms", type=choose.vms, default=20, help="idle VMs (%(default)s)")
    parser.add_argument("--settle", type=choose.seconds, default=3.0, help="s before it counts (%(default)s)")
    parser.add_argument("--seconds", type=choose.seconds, default=10.0, help="to watch (%(default)s)")
    parser.add_argument(
        "--silence", type=choose.seconds,
        help="then let every VM send to every other, and look again after so many s of silence"
        " (rings are given back within 50)",
    )  # fmt: skip


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Watch one switch whose VMs have sent one frame each and then nothing."""
    journal.expect(1)
    kind = GuestBulkhead if options.kind == VHOST else Bulkhead
    with journal.run(kind=options.kind, vms=options.vms) as run, kind() as way:
        way.start(options.kind, options.vms, 1514)
        workers = set(way.workers(*range(1, options.vms + 1)))
        with journal.during(options.settle, "settling"):
            time.sleep(options.settle)
        processes = way.switch.processes()
        assert way.switch.process is not None
        supervisor = way.switch.process.pid
        begun, before = time.monotonic(), {pid: _use(pid) for pid in processes}
        with journal.during(options.seconds, "watching"):
            time.sleep(options.seconds)
        after = {pid: _use(pid) for pid in processes}
        passed = time.monotonic() - begun
        run["seconds"] = passed
        run["processes"] = [
            {
                "role": WORKER if pid in workers else SUPERVISOR if pid == supervisor else SPARE,
                "cpu_percent": (after[pid][0] - before[pid][0]) / passed / 1e7,
                "wakeups": (after[pid][1] - before[pid][1]) / passed,
                **_size(pid),
            }
            for pid in processes
        ]
        if options.silence is not None:
            run["talked"] = _talk(way, sorted(workers), options, journal)


def _talk(
    way: Bulkhead, workers: list[int], options: argparse.Namespace, journal: Journal
) -> dict[str, list[dict[str, Any]]]:
    """Let every VM send to every other; return the sizes of the workers then, and after a silence."""
    with journal.during(0.0, "talking"):
        for distance in range(1, options.vms):
            waiting = {
                number: (number + distance - 1) % options.vms + 1 for number in range(1, options.vms + 1)
            }
            wait_for(lambda waiting=waiting: _all_heard(way, waiting), "every VM to hear the next")  # type: ignore[misc]
    talking = [_size(pid) for pid in workers]
    with journal.during(options.silence, "silence"):
        time.sleep(options.silence)
    return {TALKING: talking, SILENT: [_size(pid) for pid in workers]}


def _all_heard(way: Bulkhead, waiting: dict[int, int]) -> bool:
    """Send from each VM to the one that it has not reached yet; return whether all have been reached."""
    for sender, receiver in waiting.items():
        way.vms[sender - 1].send(build_frame(mac(receiver), mac(sender)))
    for sender, receiver in list(waiting.items()):
        if any(frame[6:12] == mac(sender) for frame in way.vms[receiver - 1].drain()):
            del waiting[sender]
    return not waiting


def _use(pid: int) -> tuple[int, int]:
    return proc.cpu_ns([pid]), proc.switches([pid])


def _size(pid: int) -> dict[str, Any]:
    pss, rss = proc.memory(pid)
    return {"pss": pss, "rss": rss, "descriptors": proc.descriptors(pid), "threads": proc.threads(pid)}


def _sizes(role: str, group: list[dict[str, Any]]) -> Sequence[str]:
    """Return the first cells of the row of some processes."""
    return (
        role,
        f"{len(group)}",
        spread([process["pss"] for process in group], 2, 1 / MIB),
        median([process["rss"] for process in group], 2, 1 / MIB),
        median([process["descriptors"] for process in group], 0),
        median([process["threads"] for process in group], 0),
    )


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each kind of process, and one of their sum."""
    trouble = journal.trouble()
    if trouble:
        yield (TOGETHER, trouble)
        return
    processes = journal.runs[0]["processes"]
    for role in ROLES:
        group = [process for process in processes if process["role"] == role]
        if group:
            yield (
                *_sizes(role, group),
                spread([process["cpu_percent"] for process in group], 3),
                median([process["wakeups"] for process in group], 1),
            )

    for role, group in journal.runs[0].get("talked", {}).items():
        yield (*_sizes(role, group), "", "")

    def total(key: str) -> list[float | None]:
        values = [process[key] for process in processes]
        return [None if None in values else sum(values)]

    yield (
        TOGETHER,
        f"{len(processes)}",
        median(total("pss"), 1, 1 / MIB),
        median(total("rss"), 1, 1 / MIB),
        median(total("descriptors"), 0),
        median(total("threads"), 0),
        median(total("cpu_percent"), 2),
        median(total("wakeups"), 1),
    )


BENCHMARK = Benchmark(
    "footprint",
    "memory, descriptors, threads and idle CPU of the switch with idle VMs",
    "Attaches VMs that say nothing, waits, and watches all processes of the switch from outside, by"
    " /proc. Of several processes a cell has the median and the range. PSS counts a shared page in parts;"
    " RSS counts it in full, so that a sum of RSS is too much.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

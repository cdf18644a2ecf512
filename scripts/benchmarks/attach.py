"""``attach``: from a VM's connect to its first forwarded frame."""

from __future__ import annotations

import argparse
import statistics
import struct
import time
from collections.abc import Iterable, Sequence

from scripts.benchmarks.lab.sockets import KINDS, Bulkhead
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report.figures import percentile
from scripts.benchmarks.report.journal import Benchmark, Journal
from tests.helpers.guests.fake_vm import ETHERTYPE, FakeVM, mac

PACED, BACK_TO_BACK, AT_ONCE = "one after another, paced", "one after another", "all at once"
CASES = (PACED, BACK_TO_BACK, AT_ONCE)
COLUMNS = (
    "kind", "VMs", "attached", "median ms", "p99 ms", "fastest ms", "slowest ms", "first frame lost",
    "not within 10 s",
)  # fmt: skip
WATCHER = 1
AGAIN = 0.005
"""A first frame may come before any port can be reached: it is sent again after so many seconds, with its
number."""
PATIENCE = 10.0
_NOTE = struct.Struct(">IH")  # the VM's number, the attempt's


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append", help="of socket, more than once for several (stream)"
    )
    parser.add_argument("--vms", type=choose.vms, default=50, help="to attach (%(default)s)")
    parser.add_argument("--rounds", type=choose.count, default=1, help="of each case (%(default)s)")
    parser.add_argument(
        "--pause", type=choose.seconds, default=0.3, help="s between two VMs when paced (%(default)s)"
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Attach VMs to a switch of their own in each case; all of them stay."""
    options.kind = options.kind or ["stream"]
    journal.expect(len(options.kind) * options.rounds * len(CASES))
    for kind in options.kind:
        for number in range(options.rounds):
            for case in CASES:
                with journal.run(kind=kind, case=case, round=number) as run, Bulkhead() as way:
                    # As many listeners as a datagram VM each needs, but only the watcher is plugged in.
                    way.listen(kind, options.vms + 1)
                    way.plug(WATCHER)
                    way.announce()
                    way.switch.wait_live(1)
                    numbers = range(WATCHER + 1, WATCHER + 1 + options.vms)
                    if case == AT_ONCE:
                        seen = until_heard(way, list(numbers))
                    else:
                        seen = {}
                        for vm in numbers:
                            if case == PACED:
                                time.sleep(options.pause)
                            seen |= until_heard(way, [vm])
                    run["seconds"] = [round(seconds, 7) for seconds, _ in seen.values()]
                    run["first_lost"] = sum(attempt > 0 for _, attempt in seen.values())
                    run["late"] = options.vms - len(seen)


def until_heard(way: Bulkhead, numbers: Sequence[int]) -> dict[int, tuple[float, int]]:
    """Connect VMs and wait until the watcher has a frame of each.

    Returns for each VM the seconds from its connect and the number of the attempt that got through; a VM that
    did not make it is left out.
    """
    watcher = way.vms[WATCHER - 1]
    watcher.drain()
    begun: dict[int, float] = {}
    seen: dict[int, tuple[float, int]] = {}
    waiting: dict[int, FakeVM] = {}
    for number in numbers:
        begun[number] = time.monotonic()
        waiting[number] = way.plug(number)
        waiting[number].send(_frame(number, 0))
    deadline, attempt, again = begun[numbers[0]] + PATIENCE, 1, begun[numbers[-1]] + AGAIN
    while waiting and (now := time.monotonic()) < deadline:
        if now >= again:
            for number, vm in waiting.items():
                vm.send(_frame(number, attempt))
            attempt, again = attempt + 1, now + AGAIN
        try:
            frames = [watcher.receive(max(0.0, again - now))]
        except TimeoutError:
            continue
        now = time.monotonic()
        for frame in [*frames, *watcher.drain()]:
            number, its_attempt = _NOTE.unpack(frame[14 : 14 + _NOTE.size])
            if waiting.pop(number, None):
                seen[number] = (now - begun[number], its_attempt)
    return seen


def _frame(number: int, attempt: int) -> bytes:
    head = mac(WATCHER) + mac(number) + struct.pack(">H", ETHERTYPE) + _NOTE.pack(number, attempt)
    return head.ljust(60, b"\0")


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each case; the figures are of all its VMs together."""
    for kind, case in dict.fromkeys((run["kind"], run["case"]) for run in journal.runs):
        trouble = journal.trouble(kind=kind, case=case)
        runs = [run for run in journal.of(kind=kind, case=case) if "late" in run]
        times = [seconds * 1e3 for run in runs for seconds in run["seconds"]]
        late = sum(run["late"] for run in runs)
        attached = f"{case}, {journal.options.pause:g} s apart" if case == PACED else case
        start = (kind, f"{len(times) + late}", attached)
        if trouble or not times:
            yield (*start, trouble or "none got through")
            continue
        yield (
            *start,
            f"{statistics.median(times):,.2f}",
            f"{percentile(times, 0.99):,.2f}",
            f"{min(times):,.2f}",
            f"{max(times):,.2f}",
            f"{sum(run['first_lost'] for run in runs):,}",
            f"{late:,}",
        )


BENCHMARK = Benchmark(
    "attach",
    "time from a VM's connect to its first forwarded frame",
    "A VM that is there already waits for a frame of each VM that attaches; the clock runs from before a"
    " VM's connect until that frame is there. A VM sends its first frame at once after its connect, and"
    " again every 5 ms: 'first frame lost' counts those of which a later one got through first.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

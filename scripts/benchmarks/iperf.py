"""``iperf``: TCP of real kernels between network namespaces, as gvproxy's pull request 613 measured it."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from scripts.benchmarks import options as choose
from scripts.benchmarks import plots, proc
from scripts.benchmarks.figures import NOTHING, median, spread
from scripts.benchmarks.journal import Benchmark, Journal, MissingError, Run
from scripts.benchmarks.taps import BEFORE, LABS, RIGHT, Lab
from tests.guests.machine import CommandError

THERE, BACK = "left to right", "right to left"
COLUMNS = (
    "MTU", "test", "switch", "direction", "Gbit/s", "retransmits", "slowest stream", "fastest stream",
    "sigma", "sigma/mean %",
    "dropped by the switch", "dropped before it", "switch's CPU, % of a core",
)  # fmt: skip


class Test(NamedTuple):
    """One way to call iperf3."""

    words: str
    directions: tuple[str, ...]
    streams: int
    """In each direction."""

    @property
    def title(self) -> str:
        """How it is called in the table."""
        both = ", both ways" if len(self.directions) > 1 else ""
        return f"{self.streams} stream{'s' * (self.streams > 1)}{both}"


ONE_STREAM = (Test("", (THERE,), 1), Test("-R", (BACK,), 1), Test("--bidir", (THERE, BACK), 1))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--mtu", type=choose.mtu, action="append", help="more than once for several (1500, 65520)"
    )
    parser.add_argument(
        "--seconds", type=choose.count, default=60, help="of each test of one stream (%(default)s)"
    )
    parser.add_argument(
        "--streams", type=choose.streams, default=8, help="each way, in the long test (%(default)s)"
    )
    parser.add_argument(
        "--streams-seconds", type=choose.count, default=600, help="of the test of these (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=choose.count, default=1, help="in which the switches take turns (%(default)s)"
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all tests on one lab of each kind."""
    options.mtu = options.mtu or [1500, 65520]
    many = Test(f"-P {options.streams} -Z --bidir", (THERE, BACK), options.streams)
    cases = list(itertools.product(range(options.rounds), options.mtu, (*ONE_STREAM, many), LABS))
    journal.expect(len(cases))
    with contextlib.ExitStack() as stack:
        labs: dict[type[Lab], Lab] = {}
        missing: dict[tuple[type[Lab], int], MissingError] = {}
        for number, mtu, test, kind in cases:
            seconds = options.streams_seconds if test is many else options.seconds
            what = {"mtu": mtu, "test": test.title, "words": test.words, "way": kind.name, "round": number}
            with journal.run(**what) as run, journal.during(seconds, "iperf3"):
                if (kind, mtu) in missing:
                    raise missing[kind, mtu]
                if kind not in labs:
                    labs[kind] = stack.enter_context(kind())
                try:
                    run.update(_measure(labs[kind], mtu, test, seconds))
                except MissingError as error:
                    missing[kind, mtu] = error
                    raise
                except CommandError as error:
                    raise RuntimeError(str(error)) from error


def _measure(lab: Lab, mtu: int, test: Test, seconds: int) -> dict[str, Any]:
    """Run iperf3 once, its client on the left."""
    lab.set_mtu(mtu)
    workers = lab.forwarders()
    drops, before = lab.drops(), proc.cpu_ns(workers)
    words = f"exec iperf3 -c {RIGHT} -t {seconds} -J {test.words}"
    report = json.loads(lab.left.run(words, timeout=seconds + 30))
    used = proc.cpu_ns(workers) - before
    dropped = {reason: frames - drops[reason] for reason, frames in lab.drops().items()}
    return {
        "directions": {direction: _direction(report, direction) for direction in test.directions},
        "dropped_before": dropped.pop(BEFORE),
        "dropped_by_switch": sum(dropped.values()) if dropped else None,
        "dropped_by_reason": dropped,
        "cpu_percent": used / report["end"]["streams"][0]["receiver"]["seconds"] / 1e7,
        "version": report["start"]["version"],
    }


def _direction(report: dict[str, Any], direction: str) -> dict[str, Any]:
    """Take one direction's streams out of iperf3's report; what is received counts."""

    def ours(stream: dict[str, Any]) -> bool:
        return bool(stream["sender"]) == (direction == THERE)  # the client is on the left

    streams = [stream for stream in report["end"]["streams"] if ours(stream["receiver"])]
    intervals = [[each for each in interval["streams"] if ours(each)] for interval in report["intervals"]]
    return {
        "per_stream": [stream["receiver"]["bits_per_second"] for stream in streams],
        "retransmits": sum(stream["sender"].get("retransmits", 0) for stream in streams),
        "times": [round(each[0]["end"], 3) for each in intervals if each],
        "series": [
            [round(each[index]["bits_per_second"]) for each in intervals if each]
            for index in range(len(streams))
        ],
    }


def _sigma(run: Run, relative: bool) -> float | None:
    streams: list[float] = run["per_stream"]
    if len(streams) < 2 or not sum(streams):
        return None
    sigma = statistics.pstdev(streams)
    return 100 * sigma / statistics.mean(streams) if relative else sigma


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each direction of each case."""
    cases = dict.fromkeys((run["mtu"], run["test"], run["words"], run["way"]) for run in journal.runs)
    said = set()
    for mtu, test, words, way in cases:
        trouble = journal.trouble(mtu=mtu, way=way)
        if trouble:  # one row says it for all tests
            if (mtu, way) not in said:
                yield (f"{mtu:,}", "any", way, trouble)
            said.add((mtu, way))
            continue
        case = {"mtu": mtu, "test": test, "words": words, "way": way}
        start = (f"{mtu:,}", test, way)
        trouble = journal.trouble(**case)
        if trouble:
            yield (*start, trouble)
            continue
        runs = [run for run in journal.of(**case) if "directions" in run]
        for direction in runs[0]["directions"]:
            yield (*start, direction, *_cells(runs, [run["directions"][direction] for run in runs]))


def _cells(runs: Sequence[Run], ways: Sequence[Run]) -> Iterable[str]:
    each = [way["per_stream"] for way in ways if len(way["per_stream"]) > 1]
    yield spread([sum(way["per_stream"]) for way in ways], 2, 1e-9)
    yield median([way["retransmits"] for way in ways], 0)
    yield median(map(min, each), 3, 1e-9)
    yield median(map(max, each), 3, 1e-9)
    yield median([_sigma(way, False) for way in ways], 3, 1e-9)
    yield spread([_sigma(way, True) for way in ways], 1)
    both = len(runs[0]["directions"]) > 1
    if both and ways[0] is not next(iter(runs[0]["directions"].values())):
        yield from (NOTHING,) * 3  # the same as the other direction's
        return
    yield median([run["dropped_by_switch"] for run in runs], 0)
    yield median([run["dropped_before"] for run in runs], 0)
    yield median([run["cpu_percent"] for run in runs], 0)


def draw(journal: Journal) -> Any:
    """Draw the streams of the longest test over time, of the first round: a row of plots for each switch."""
    runs = [
        run
        for run in journal.runs
        if any(len(way["per_stream"]) > 1 for way in run.get("directions", {}).values()) and not run["round"]
    ]
    if not runs:
        return None
    figure, axes = plots.grid(len(runs), 2)
    for row, run in enumerate(runs):
        top = max(max(map(max, way["series"])) for way in run["directions"].values())
        for cell, (direction, way) in zip(axes[row], run["directions"].items(), strict=True):
            for series in way["series"]:
                cell.plot(way["times"], [value / 1e9 for value in series], linewidth=0.8)
            cell.set_ylim(0, 1.05 * top / 1e9)
            cell.set_title(f"{run['way']}, MTU {run['mtu']:,}: {direction}", fontsize="medium")
            cell.set_xlabel("s")
            cell.set_ylabel("Gbit/s of each stream")
            cell.grid(visible=True, alpha=0.3)
    return figure


BENCHMARK = Benchmark(
    "iperf",
    "TCP between two network namespaces through TAPs of the switch (needs root)",
    "Two network namespaces of its own, each with a TAP that leads to the switch, and iperf3 between them:"
    " real kernels' TCP, one stream each way, both at once, and several both ways with -Z. The same through"
    " one vde_switch, in turn. There are no offloads across the switch; the ends' TCP uses the same cores as"
    " the switch. Sigma is that of the streams' rates over the whole test, in Gbit/s. What is dropped, and"
    " the CPU, are of both directions together.",
    COLUMNS,
    arguments,
    measure,
    rows,
    draw,
)

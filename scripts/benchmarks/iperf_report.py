"""What ``iperf`` makes of iperf3's reports: one run out of each, then rows and a picture, purely."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from scripts.benchmarks.lab.lab import Test
from scripts.benchmarks.report import plots
from scripts.benchmarks.report.figures import NOTHING, median, ratios, spread
from scripts.benchmarks.report.journal import Journal, Run

COLUMNS = (
    "MTU", "test", "switch", "direction", "Gbit/s", "of bulkhead's",
    "retransmits", "a GB", "slowest stream", "fastest stream", "sigma", "sigma/mean %",
    "GB", "wrong sums", "dropped by the switch", "dropped before it", "switch's CPU, % of a core",
)  # fmt: skip


def directions(report: dict[str, Any], test: Test) -> dict[str, Any]:
    """Take the streams of each direction out of iperf3's report; what is received counts."""
    return {direction: _direction(report, test.sent_by_client(direction)) for direction in test.directions}


def _direction(report: dict[str, Any], by_client: bool) -> dict[str, Any]:
    def ours(stream: dict[str, Any]) -> bool:
        return bool(stream["sender"]) == by_client

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
    keys = ("mtu", "test", "words", "client", "way")
    cases = dict.fromkeys(tuple(run[key] for key in keys) for run in journal.runs)
    said = set()
    for mtu, test, words, client, way in cases:
        trouble = journal.trouble(mtu=mtu, way=way)
        if trouble:  # one row says it for all tests
            if (mtu, way) not in said:
                yield (f"{mtu:,}", "any", way, trouble)
            said.add((mtu, way))
            continue
        case = {"mtu": mtu, "test": test, "words": words, "client": client, "way": way}
        start = (f"{mtu:,}", test, way)
        trouble = journal.trouble(**case)
        if trouble:
            yield (*start, trouble)
            continue
        runs = [run for run in journal.of(**case) if "directions" in run]
        ours = journal.of(**{**case, "way": runs[0]["partner"]})
        for direction in runs[0]["directions"]:
            each = [run["directions"][direction] for run in runs]
            yield (*start, direction, *_cells(runs, each, _ratios(runs, ours, direction)))


def _rate(run: Run, direction: str) -> float:
    streams: list[float] = run["directions"][direction]["per_stream"]
    return sum(streams)


def _ratios(runs: Sequence[Run], ours: Sequence[Run], direction: str) -> str:
    """Compare with our lab of the same kind, round by round."""
    bases = {run["round"]: _rate(run, direction) for run in ours if "directions" in run}
    if runs[0]["way"] == runs[0]["partner"]:
        return NOTHING
    return ratios([_rate(run, direction) for run in runs], [bases.get(run["round"]) for run in runs])


def _gigabytes(way: Run) -> float:
    seconds: float = (way["times"] or [0.0])[-1]
    return sum(way["per_stream"]) * seconds / 8e9


def _cells(runs: Sequence[Run], ways: Sequence[Run], of_ours: str) -> Iterable[str]:
    each = [way["per_stream"] for way in ways if len(way["per_stream"]) > 1]
    yield spread([sum(way["per_stream"]) for way in ways], 2, 1e-9)
    yield of_ours
    yield median([way["retransmits"] for way in ways], 0)
    yield median([way["retransmits"] / _gigabytes(way) for way in ways if _gigabytes(way)], 0)
    yield median(map(min, each), 3, 1e-9)
    yield median(map(max, each), 3, 1e-9)
    yield median([_sigma(way, False) for way in ways], 3, 1e-9)
    yield spread([_sigma(way, True) for way in ways], 1)
    yield f"{sum(map(_gigabytes, ways)):.2f}"
    both = len(runs[0]["directions"]) > 1
    if both and ways[0] is not next(iter(runs[0]["directions"].values())):
        yield from (NOTHING,) * 4  # the same as the other direction's
        return
    yield f"{sum(run['wrong_sums'] for run in runs):,}"
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

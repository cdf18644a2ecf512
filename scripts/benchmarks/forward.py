"""``forward``: two VMs through a running switch, against a process that only copies, and other switches."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.lab import generator, guests
from scripts.benchmarks.lab.guests import VHOST
from scripts.benchmarks.lab.sockets import KINDS, Bulkhead, Contender, Direct, Relay
from scripts.benchmarks.lab.switches import Gvproxy, VdeSwitch
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import plots, proc
from scripts.benchmarks.report.figures import NOTHING, known_median, median, ratios, spread
from scripts.benchmarks.report.journal import Benchmark, Journal, Run

SIZES = (60, 128, 512, 1514, 9014, 65_000)
COLUMNS = (
    "frames", "way", "M frames/s", "Gbit/s", "CPU ns a frame", "lost", "out of order, corrupt",
    "round trip p50 µs", "p99 µs", "p99.9 µs", "under load p50 µs", "p99 µs", "p99.9 µs",
    "rate, of relay's", "CPU, of relay's", "round trip, of relay's", "under load, of relay's",
    "VMs' CPU ns a frame", "CPU with VMs', of relay's", "CPU, of memcpy bound",
)  # fmt: skip
MARKS = {"p50_ns": 1, "p99_ns": 100, "p999_ns": 1000}
"""Percentiles, and how many round trips it takes to speak of one."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--size",
        type=choose.frame_size,
        action="append",
        help="bytes of a frame, more than once for several (1514)",
    )
    parser.add_argument(
        "--kind",
        choices=[*KINDS, VHOST],
        action="append",
        help="of socket, or guests that share their memory; more than once for several (stream)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"all kinds of sockets, and {', '.join(map(str, SIZES))} bytes, unless some are named",
    )
    parser.add_argument(
        "--rounds", type=choose.count, default=5, help="alternating runs of each way (%(default)s)"
    )
    parser.add_argument("--seconds", type=choose.seconds, default=2.0, help="of flow in a run (%(default)s)")
    parser.add_argument(
        "--window", type=choose.count, default=generator.WINDOW_BYTES, help="bytes in flight (%(default)s)"
    )
    parser.add_argument("--gvproxy", type=Path, metavar="PATH", help="a gvproxy binary to compare with")


def _contenders(options: argparse.Namespace, kind: str) -> tuple[type[Contender], ...]:
    if kind == VHOST:
        return guests.WAYS
    named = (Gvproxy,) if options.gvproxy else ()
    return (Direct, Relay, Bulkhead, VdeSwitch, *named)


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all cases."""
    options.size = options.size or (list(SIZES) if options.full else [1514])
    options.kind = options.kind or ([*KINDS, VHOST] if options.full else ["stream"])
    Gvproxy.binary = options.gvproxy
    cases = [
        (kind, size, number, contender)
        for kind, size, number in itertools.product(options.kind, options.size, range(options.rounds))
        for contender in _contenders(options, kind)
    ]
    journal.expect(len(cases))
    for kind, size, number, contender in cases:
        what = {"kind": kind, "size": size, "way": contender.name, "round": number}
        with journal.run(**what) as run, contender() as way:
            way.start(kind, 2, size)
            way.meet(1, 2)
            pair, pids = way.pair(1, 2), way.forwarders()
            window = options.window
            if way.most_in_flight is not None:  # what it would drop measures the flow's patience
                window = min(window, way.most_in_flight * size)
            before = proc.cpu_ns(pids)
            measured = generator.flow(way.wire, size, options.seconds, pair, window=window)
            run.update(measured, vms_cpu_ns=measured.pop("cpu_ns"))
            run["cpu_ns"] = proc.cpu_ns(pids) - before if pids else None
            if kind == VHOST:
                run["bound"] = generator.bound(size, options.seconds / 4)
            run["echo"] = generator.echo(way.wire, size, options.seconds / 2, pair)
            run["loaded"] = generator.flow(
                way.wire, size, options.seconds / 2, pair, window=window, probe=True
            )


def rate(run: Run) -> float | None:
    """Return frames per second."""
    return float(run["received"] / run["seconds"]) if "received" in run else None


def _cpu(run: Run) -> float | None:
    return run["cpu_ns"] / run["received"] if run.get("cpu_ns") and run["received"] else None


def _vms_cpu(run: Run) -> float | None:
    return run["vms_cpu_ns"] / run["received"] if run.get("vms_cpu_ns") and run["received"] else None


def _whole_cpu(run: Run) -> float | None:
    ours, theirs = _cpu(run), _vms_cpu(run)
    return None if ours is None or theirs is None else ours + theirs


def _bound(run: Run) -> float | None:
    bound = run.get("bound")
    return bound["cpu_ns"] / bound["frames"] if bound else None


def _megaframes(run: Run) -> float | None:
    frames = rate(run)
    return None if frames is None else frames / 1e6


DRAWN = {"M frames/s": _megaframes, "CPU ns a frame": _cpu}


def _idle(run: Run) -> dict[str, Any]:
    return dict(run.get("echo", {}))


def _loaded(run: Run) -> dict[str, Any]:
    return dict(run.get("loaded", {}).get("under_load", {}))


def _p50(runs: Iterable[Run], trips: Callable[[Run], dict[str, Any]]) -> Iterator[float | None]:
    for run in runs:
        yield trips(run).get("p50_ns")


def lost(runs: Iterable[Run]) -> str:
    """Say how many frames of how many were lost."""
    known = [run for run in runs if "sent" in run]
    return f"{sum(run['lost'] for run in known):,} of {sum(run['sent'] for run in known):,}"


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each way in each case."""
    cases = list(dict.fromkeys((run["kind"], run["size"]) for run in journal.runs))
    for kind, size in cases:
        for contender in _contenders(journal.options, kind):
            trouble = journal.trouble(kind=kind, way=contender.name)
            sizes = [each for other, each in cases if other == kind]
            if trouble and len(sizes) > 1:  # one row says it for all sizes
                if size == sizes[0]:
                    yield (f"{kind}, any size", contender.name, trouble)
                continue
            yield _row(journal, kind, size, contender)


def _row(journal: Journal, kind: str, size: int, contender: type[Contender]) -> Sequence[str]:
    case = {"kind": kind, "size": size, "way": contender.name}
    start = (f"{kind}, {size:,} B", contender.name)
    trouble = journal.trouble(**case)
    if trouble:
        return (*start, trouble)
    runs, bases = journal.of(**case), journal.of(kind=kind, size=size, way=Relay.name)
    whole = NOTHING if issubclass(contender, Relay) else ratios(map(_whole_cpu, runs), map(_whole_cpu, bases))
    wrong = sum(run.get("reordered", 0) + run.get("corrupt", 0) for run in runs)
    compared: tuple[str, ...] = (NOTHING,) * 4
    if not issubclass(contender, Direct):
        compared = (
            ratios(map(rate, runs), map(rate, bases)),
            ratios(map(_cpu, runs), map(_cpu, bases)),
            ratios(_p50(runs, _idle), _p50(bases, _idle)),
            # Behind a smaller window less waits.
            NOTHING if contender.most_in_flight else ratios(_p50(runs, _loaded), _p50(bases, _loaded)),
        )
    return (
        *start,
        spread([rate(run) for run in runs], 3, 1e-6),
        median([rate(run) for run in runs], 2, size * 8e-9),
        median([_cpu(run) for run in runs], 0),
        lost(runs),
        f"{wrong:,}",
        *_percentiles(map(_idle, runs)),
        *_percentiles(map(_loaded, runs)),
        *compared,
        median([_vms_cpu(run) for run in runs], 0),
        whole,
        ratios(map(_cpu, runs), map(_bound, runs)),
    )


def _percentiles(trips: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Format the medians of the rounds' percentiles; a percentile of too few round trips is none."""
    known = list(trips)
    for mark, least in MARKS.items():
        yield median([each.get(mark) for each in known if each.get("answered", 0) >= least], 1, 1e-3)


def draw(journal: Journal) -> Any:
    """Draw rate and CPU over the size for each kind."""
    sizes = sorted({run["size"] for run in journal.runs})
    kinds = list(dict.fromkeys(run["kind"] for run in journal.runs))
    if len(sizes) < 2:
        return None
    figure, axes = plots.grid(len(DRAWN), len(kinds))
    for (row, (title, value)), (column, kind) in itertools.product(
        enumerate(DRAWN.items()), enumerate(kinds)
    ):
        for way in _contenders(journal.options, kind):
            cases = [journal.of(kind=kind, size=size, way=way.name) for size in sizes]
            heights = [known_median(map(value, runs)) for runs in cases]
            if any(height is not None for height in heights):
                plots.by_size(axes[row][column], sizes, way.name, heights)
        axes[row][column].set_title(f"{kind}: {title}")
        axes[row][column].legend(fontsize="small")
    return figure


BENCHMARK = Benchmark(
    "forward",
    "two VMs through the switch, against a process that only copies",
    "Frames from one VM to another, closed-loop (never more in flight than a window, as TCP would), then"
    " round trips one at a time, then round trips of small frames that wait behind the flow's. 'no switch'"
    " joins the two VMs' sockets directly: what the load generator itself can do. 'bare relay' is one process"
    " that copies from socket to socket with the same batching: what the kernel allows for one hop. CPU is"
    " that of the two VMs' workers, of the relay, or of the other switch. Ratios are between runs of the same"
    " round.",
    COLUMNS,
    arguments,
    measure,
    rows,
    draw,
)

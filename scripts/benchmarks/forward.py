"""``forward``: two VMs through a running switch, against a process that only copies."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence

from scripts.benchmarks import generator, proc
from scripts.benchmarks import options as choose
from scripts.benchmarks.contenders import KINDS, Bulkhead, Contender, Direct, Relay
from scripts.benchmarks.figures import NOTHING, median, ratios, spread
from scripts.benchmarks.journal import Benchmark, Journal, Run

CONTENDERS: tuple[type[Contender], ...] = (Direct, Relay, Bulkhead)
COLUMNS = (
    "frames", "way", "M frames/s", "Gbit/s", "CPU ns a frame", "lost", "out of order, corrupt",
    "round trip p50 µs", "p99 µs", "rate, of relay's", "CPU, of relay's", "round trip, of relay's",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--size",
        type=choose.frame_size,
        action="append",
        help="bytes of a frame, more than once for several (1514)",
    )
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append", help="of socket, more than once for several (stream)"
    )
    parser.add_argument(
        "--rounds", type=choose.count, default=5, help="alternating runs of each way (%(default)s)"
    )
    parser.add_argument("--seconds", type=choose.seconds, default=2.0, help="of flow in a run (%(default)s)")
    parser.add_argument(
        "--window", type=choose.count, default=generator.WINDOW_BYTES, help="bytes in flight (%(default)s)"
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all cases."""
    options.size, options.kind = options.size or [1514], options.kind or ["stream"]
    for kind, size, number in itertools.product(options.kind, options.size, range(options.rounds)):
        for contender in CONTENDERS:
            what = {"kind": kind, "size": size, "way": contender.name, "round": number}
            with journal.run(**what) as run, contender() as way:
                way.start(kind, 2, size)
                way.meet(1, 2)
                pair, pids = way.pair(1, 2), way.forwarders()
                before = proc.cpu_ns(pids)
                run.update(generator.flow(kind, size, options.seconds, pair, window=options.window))
                run["cpu_ns"] = proc.cpu_ns(pids) - before if pids else None
                run["echo"] = generator.echo(kind, size, options.seconds / 2, pair)


def rate(run: Run) -> float | None:
    """Return frames per second."""
    return float(run["received"] / run["seconds"]) if "received" in run else None


def _cpu(run: Run) -> float | None:
    return run["cpu_ns"] / run["received"] if run.get("cpu_ns") and run["received"] else None


def _echo(run: Run, mark: str) -> float | None:
    value: float | None = run.get("echo", {}).get(mark)
    return value


def lost(runs: Iterable[Run]) -> str:
    """Say how many frames of how many were lost."""
    known = [run for run in runs if "sent" in run]
    return f"{sum(run['lost'] for run in known):,} of {sum(run['sent'] for run in known):,}"


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each way in each case."""
    for kind, size in dict.fromkeys((run["kind"], run["size"]) for run in journal.runs):
        bases = journal.of(kind=kind, size=size, way=Relay.name)
        for contender in CONTENDERS:
            case = {"kind": kind, "size": size, "way": contender.name}
            start = (f"{kind}, {size:,} B", contender.name)
            trouble = journal.trouble(**case)
            if trouble:
                yield (*start, trouble)
                continue
            runs = journal.of(**case)
            wrong = sum(run.get("reordered", 0) + run.get("corrupt", 0) for run in runs)
            compared: tuple[str, ...] = (NOTHING, NOTHING, NOTHING)
            if contender is Bulkhead:
                compared = (
                    ratios(map(rate, runs), map(rate, bases)),
                    ratios(map(_cpu, runs), map(_cpu, bases)),
                    ratios(*([_echo(run, "p50_ns") for run in group] for group in (runs, bases))),
                )
            yield (
                *start,
                spread([rate(run) for run in runs], 3, 1e-6),
                median([rate(run) for run in runs], 2, size * 8e-9),
                median([_cpu(run) for run in runs], 0),
                lost(runs),
                f"{wrong:,}",
                median([_echo(run, "p50_ns") for run in runs], 1, 1e-3),
                median([_echo(run, "p99_ns") for run in runs], 1, 1e-3),
                *compared,
            )


BENCHMARK = Benchmark(
    "forward",
    "two VMs through the switch, against a process that only copies",
    "Frames from one VM to another, closed-loop (never more in flight than a window, as TCP would), then"
    " round trips one at a time. 'no switch' joins the two VMs' sockets directly: what the load generator"
    " itself can do. 'bare relay' is one process that copies from socket to socket with the same batching:"
    " what the kernel allows for one hop. CPU is that of the two VMs' workers, or of the relay. Ratios"
    " are between runs of the same round.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

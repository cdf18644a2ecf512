"""The command line of ``scripts/bench``: one subcommand for each benchmark."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from scripts.benchmarks.report.journal import Benchmark, Journal, MissingError, table
from scripts.benchmarks.report.machine import ROOT, cores

NAMES = (
    "forward",
    "attach",
    "footprint",
    "iperf",
    "gateway",
    "host",
    "offloads",
    "isolation",
    "fairness",
    "continuity",
    "soak",
    "scale",
    "profile",
    "capture",
    "page",
)
INTERRUPTED = 130
QUIET_LOAD = 0.25
"""Load average for each core beyond which something else is running."""


def main(words: list[str] | None = None) -> int:
    """Run one benchmark; returns 0 if all that could be measured here was, 1 if a run failed."""
    benchmarks = [importlib.import_module(f"scripts.benchmarks.{name}").BENCHMARK for name in NAMES]
    options = _parser(benchmarks).parse_args(words)
    benchmark: Benchmark = options.benchmark
    del options.benchmark
    journal = Journal(benchmark.name, options)
    if journal.load_before > QUIET_LOAD * cores():
        print(
            f"bench: this machine is busy (load {journal.load_before:.1f}, {cores()} cores):"
            " a switch of more processes will look worse than it is",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        benchmark.measure(options, journal)
    except KeyboardInterrupt:
        journal.interrupted = True
    journal.clear()
    text = table(benchmark.columns, benchmark.rows(journal))
    print(text, end="")
    path = journal.save(options.output, text)
    print(f"\nbench: every run is in {path}", file=sys.stderr)
    if benchmark.draw is not None:
        print(f"bench: {_draw(benchmark, journal, path.with_suffix('.png'))}", file=sys.stderr)
    if journal.interrupted:
        print("bench: interrupted; the table has what was measured until then", file=sys.stderr)
        return INTERRUPTED
    return int(journal.failed)


def _draw(benchmark: Benchmark, journal: Journal, path: Path) -> str:
    """Make the picture; returns what became of it. One of an earlier run does not stay beside a new table."""
    assert benchmark.draw is not None
    path.unlink(missing_ok=True)
    try:
        figure = benchmark.draw(journal)
    except MissingError as missing:
        return f"no {path.name}: {missing}"
    if figure is None:
        return f"no {path.name}: nothing was measured that it could show"
    figure.savefig(path, dpi=110)
    return f"{path} shows it"


def _parser(benchmarks: list[Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Benchmarks of the switch.")
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for benchmark in benchmarks:
        command = commands.add_parser(
            benchmark.name,
            help=benchmark.summary,
            description=benchmark.description,
        )
        command.add_argument(
            "--output",
            type=Path,
            default=ROOT / ".cache" / "bench",
            metavar="DIR",
            help=f"directory for {benchmark.name}.json, .md and .png (.cache/bench)",
        )
        benchmark.arguments(command)
        command.set_defaults(benchmark=benchmark)
    return parser


if __name__ == "__main__":
    sys.exit(main())

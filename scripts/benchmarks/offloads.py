"""``offloads``: what checksums, segments and inferred headers cost one core (micro/offloads.c)."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report.figures import median, spread
from scripts.benchmarks.report.journal import Benchmark, Journal, MissingError
from scripts.benchmarks.report.machine import ROOT

SOURCE = Path(__file__).with_name("micro") / "offloads.c"
CORE = ROOT / "forwarder" / "_core"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-Wall", "-Wextra")
"""As setup.py has them for the core."""

COLUMNS = ("what", "bytes", "ns, fastest", "ns, median", "Gbit/s")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--rounds", type=choose.count, default=5, help="runs of the program (%(default)s)")
    parser.add_argument(
        "--loops", type=choose.count, default=200, help="of 200 calls in each of them (%(default)s)"
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Build the program and run it; a round is a run."""
    compiler = os.environ.get("CC", "cc")
    journal.expect(options.rounds)
    with tempfile.TemporaryDirectory(prefix="bh-") as directory:
        program = Path(directory) / "offloads"
        sources = [SOURCE, *sorted([*CORE.glob("offload/*.c"), *CORE.glob("packet/*.c")])]
        words = [compiler, *FLAGS, f"-I{CORE}", "-o", str(program), *map(str, sources)]
        for number in range(options.rounds):
            with journal.run(round=number, compiler=compiler) as run:
                if not program.exists():
                    try:
                        subprocess.run(words, check=True)
                    except FileNotFoundError as error:
                        raise MissingError(
                            f"no C compiler {compiler!r}: install one, or name it in CC"
                        ) from error
                lines = subprocess.run(
                    [program, str(options.loops)], check=True, capture_output=True, text=True
                ).stdout.splitlines()
                cells = [line.split("\t") for line in lines]
                run["cases"] = [
                    {
                        "what": what,
                        "bytes": int(size),
                        "fastest_ns": float(fastest),
                        "median_ns": float(middle),
                    }
                    for what, size, fastest, middle in cells
                ]


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each case."""
    trouble = journal.trouble()
    if trouble:
        yield ("any", trouble)
        return
    runs = [run["cases"] for run in journal.runs if "cases" in run]
    for cases in zip(*runs, strict=True):
        fastest = [case["fastest_ns"] for case in cases]
        yield (
            cases[0]["what"],
            f"{cases[0]['bytes']:,}",
            f"{min(fastest):.1f}",
            spread([case["median_ns"] for case in cases], 1),
            median([8 * case["bytes"] / case["median_ns"] for case in cases], 0),
        )


BENCHMARK = Benchmark(
    "offloads",
    "what checksums, segments and inferred headers cost one core",
    "The core's own files in a loop, on data that is in the processor's caches: a checksum, one that is made"
    " while copying, the inference of a header, a frame finished, one of 64 KiB cut into segments of 1,448"
    " bytes, and those verified and joined again.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

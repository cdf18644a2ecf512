"""What a benchmark is, and the journal that it writes: runs, a Markdown table, a JSON file."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from scripts.benchmarks.report.machine import machine
from scripts.benchmarks.report.progress import Bar

# What a contender of a benchmark may fail with; anything else is a mistake in the benchmark itself.
FAILURES = (OSError, RuntimeError, subprocess.SubprocessError)

Run = dict[str, Any]
"""One measurement: what (case, contender, round) and what came out, or why nothing did."""


class MissingError(Exception):
    """Something that a measurement needs is not there; says what it is and what to do."""


def _is_of_an_interrupt(failure: BaseException) -> bool:
    """Whether it happened while an interrupted run was cleared away, and hides the interrupt."""
    cause: BaseException | None = failure
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


class Journal:
    """The runs of one benchmark."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.options = options
        self.runs: list[Run] = []
        self.interrupted = False
        self.load_before = os.getloadavg()[0]
        self._started = datetime.datetime.now(datetime.timezone.utc)
        self._bar = Bar(name)

    def expect(self, runs: int) -> None:
        """Say how many runs there will be, for the progress bar."""
        self._bar.expect(runs)

    def during(self, seconds: float, what: str) -> AbstractContextManager[None]:
        """Show a progress bar of its own for a part of a run that takes so long."""
        return self._bar.during(seconds, what)

    def clear(self) -> None:
        """Take the progress bar away."""
        self._bar.close()

    @contextmanager
    def run(self, **what: Any) -> Iterator[Run]:
        """Measure something: gives a run to be filled in, which is kept only if it was measured.

        That something is missing or that a contender failed is kept, too, and the benchmark goes on.
        """
        self._bar.step(" · ".join(str(value) for value in what.values()))
        run: Run = dict(what)
        try:
            yield run
        except MissingError as missing:
            run = {**what, "missing": str(missing)}
        except FAILURES as failure:
            if _is_of_an_interrupt(failure):
                raise KeyboardInterrupt from failure
            run = {**what, "failed": (str(failure) or type(failure).__name__).splitlines()[0]}
            print(f"bench: {run}\n{failure}", file=sys.stderr)
        self.runs.append(run)
        self._bar.done()

    def of(self, **what: Any) -> list[Run]:
        """Return the runs that match, in order."""
        return [run for run in self.runs if what.items() <= run.items()]

    @property
    def failed(self) -> bool:
        """Whether a run failed."""
        return any("failed" in run for run in self.runs)

    def trouble(self, **what: Any) -> str | None:
        """Return why nothing was measured of what matches, or None if something was."""
        runs = self.of(**what)
        if any("missing" not in run and "failed" not in run for run in runs):
            return None
        for run in runs:
            if "missing" in run:
                return f"not measured: {run['missing']}"
            return f"failed: {run['failed']}"
        return "not measured: interrupted" if self.interrupted else "not measured"

    def save(self, directory: Path, table: str) -> Path:
        """Write the table and everything it was made of; returns the JSON file's path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.json"
        words = {
            key: value if isinstance(value, str | int | float | list | None) else str(value)
            for key, value in vars(self.options).items()
        }
        document = {
            "benchmark": self.name,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "interrupted": self.interrupted,
            "command": ["scripts/bench", *sys.argv[1:]],
            "options": words,
            "machine": {**machine(), "load_before": self.load_before},
            "runs": self.runs,
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
        path.with_suffix(".md").write_text(table)
        return path


class Benchmark(NamedTuple):
    """One subcommand."""

    name: str
    summary: str
    description: str
    columns: Sequence[str]
    arguments: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace, Journal], None]
    rows: Callable[[Journal], Iterable[Sequence[str]]]
    """One row has as many cells as there are columns, or fewer: then the last one says why."""
    draw: Callable[[Journal], Any] | None = None
    """Make a figure (plots.grid) of the runs, or None if there is nothing to look at."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a row that is too short is filled up with dashes."""
    lines = [columns, ["---"] * len(columns)]
    lines += [[*row, *["-"] * (len(columns) - len(row))] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

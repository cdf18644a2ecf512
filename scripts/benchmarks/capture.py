"""``capture``: what a capture costs the two VMs whose frames are captured."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.sockets import KINDS, Bulkhead
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import proc
from scripts.benchmarks.report.figures import median, spread
from scripts.benchmarks.report.journal import Benchmark, Journal, Run
from tests.helpers.guests.switch import ROOT
from tests.helpers.guests.waiting import wait_for

OFF, WHOLE, HEADS, NONE_WANTED, STUCK = (
    "off", "whole frames to a file", "128 bytes of each", "a filter that wants none",
    "viewer that is stopped",
)  # fmt: skip
WAYS = (OFF, WHOLE, HEADS, NONE_WANTED, STUCK)
WORDS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    HEADS: ("--snap", "128"),
    NONE_WANTED: ("--filter", "tcp port 4711"),
    STUCK: (),
}
BOUND = 0.9
COLUMNS = (
    "frames", "capture", "M frames/s", "rate, of off", "CPU ns a frame", "CPU, of off", "captured",
    "must hold", "held",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--kind", choices=list(KINDS), default="stream", help="of socket (%(default)s)")
    parser.add_argument("--size", type=choose.frame_size, default=1514, help="bytes of a frame (%(default)s)")
    parser.add_argument("--rounds", type=choose.count, default=5, help="alternating runs (%(default)s)")
    parser.add_argument("--seconds", type=choose.seconds, default=2.0, help="of flow in a run (%(default)s)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Have one pair of one switch talk, with each way of capturing in turn."""
    journal.expect(options.rounds * len(WAYS))
    with Bulkhead() as way:
        way.start(options.kind, 2, options.size)
        way.meet(1, 2)
        for number in range(options.rounds):
            for name in WAYS:
                with journal.run(capture=name, round=number) as run, _capturing(way, name, run):
                    before = proc.cpu_ns(way.forwarders())
                    run.update(generator.flow(way.kind, options.size, options.seconds, way.pair(1, 2)))
                    run["cpu_ns"] = proc.cpu_ns(way.forwarders()) - before


@contextlib.contextmanager
def _capturing(way: Bulkhead, name: str, run: Run) -> Iterator[None]:
    """Capture both ports meanwhile; what the command says at its end is read into the run."""
    if name == OFF:
        yield
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        file = Path(directory, "capture.pcapng")
        command = [sys.executable, "-m", "bulkhead", "capture", "--runtime-dir", str(way.switch.runtime_dir)]
        process = subprocess.Popen(
            [*command, "all", "-w", str(file), *WORDS[name]], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        try:
            # Both ports' descriptions are in the file once their workers copy.
            wait_for(lambda: file.exists() and file.read_bytes().count(b"port ") >= 2, "the capture to begin")
            if name == STUCK:
                process.send_signal(signal.SIGSTOP)
            yield
        finally:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        run["captured"] = said.strip()
        run["file_bytes"] = os.stat(file).st_size


def _rate(run: Run) -> float:
    return float(run["received"] / run["seconds"])


def _cpu(run: Run) -> float:
    return float(run["cpu_ns"] / run["received"])


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each way."""
    without = [run for run in journal.of(capture=OFF) if "received" in run]
    for name in WAYS:
        start = (f"{journal.options.kind}, {journal.options.size:,} B", name)
        trouble = journal.trouble(capture=name)
        if trouble:
            yield (*start, trouble)
            continue
        runs = [run for run in journal.of(capture=name) if "received" in run]
        kept = [_rate(run) / _rate(other) for run, other in zip(runs, without, strict=False)]
        held = bool(kept) and sorted(kept)[len(kept) // 2] >= BOUND
        yield (
            *start,
            spread([_rate(run) for run in runs], 2, 1e-6),
            spread(kept, 2),
            median([_cpu(run) for run in runs], 0),
            median([_cpu(run) / _cpu(other) for run, other in zip(runs, without, strict=False)], 2),
            "" if name == OFF else runs[-1].get("captured", ""),
            "" if name == OFF else f"rate ≥ {BOUND:g}",
            "" if name == OFF else "held" if held else "not held",
        )


BENCHMARK = Benchmark(
    "capture",
    "what a capture costs the two VMs whose frames are captured",
    "One VM sends to another as fast as it can, without a capture and with one of all ports, in turn. The"
    " viewer runs on the same cores as the workers and the VMs. A ratio is to that round's run without"
    " one. 'captured' is what the command has said at the end of the last run.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

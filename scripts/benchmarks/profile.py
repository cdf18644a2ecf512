"""``profile``: where the time of a frame goes, by function."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks import stacks
from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.guests import VHOST, GuestBulkhead
from scripts.benchmarks.lab.sockets import KINDS, Bulkhead
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import plots, proc
from scripts.benchmarks.report.figures import NOTHING
from scripts.benchmarks.report.journal import Benchmark, Journal, MissingError, Run
from scripts.benchmarks.report.machine import ROOT

PERF, CALLGRIND = "perf", "callgrind"
COLUMNS = (
    "frames", "where", "share %", "CPU ns a frame", "of the sender's worker", "of the receiver's worker",
    "instructions a frame", "mostly",
)  # fmt: skip
PERF_PATIENCE = 30.0
TOP = 4
"""Functions named in a row; the JSON file has all."""
DRIVEN_FRAMES = 6400
"""For callgrind, which takes fifty times as long and counts each frame alike."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--size", type=choose.frame_size, action="append", help="of frames, more than once for several (1514)"
    )
    parser.add_argument(
        "--kind", choices=[*KINDS, VHOST], action="append",
        help="of socket, or guests that share their memory; more than once for several (all sockets)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=choose.seconds, default=5.0, help="of flow (%(default)s)")
    parser.add_argument("--frequency", type=choose.count, default=1999, help="samples a second (%(default)s)")
    parser.add_argument(
        "--tool",
        choices=(PERF, CALLGRIND),
        help="perf samples time, callgrind counts instructions (perf if it works)",
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Profile a flow of each kind and size."""
    options.kind, options.size = options.kind or list(KINDS), options.size or [1514]
    options.tool = options.tool or (PERF if _perf_trouble() is None else CALLGRIND)
    cases = list(itertools.product(options.kind, options.size))
    journal.expect(len(cases))
    for kind, size in cases:
        with journal.run(kind=kind, size=size, tool=options.tool) as run:
            if options.tool == PERF:
                run.update(_by_perf(kind, size, options, journal))
            else:
                run.update(_by_callgrind(kind, size))


def _perf_trouble() -> str | None:
    """Say why perf cannot be used here, or None if it can."""
    if shutil.which("perf") is None:
        return "perf is not installed: apt-get install linux-perf"
    with tempfile.TemporaryDirectory(prefix="bh-") as directory:
        words = ["perf", "record", "-q", "-N", "-e", "cpu-clock", "-o", f"{directory}/try", "--", "true"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"perf may not sample here: {(done.stderr.strip().splitlines() or ['no reason given'])[0]}"
    return None


def _by_perf(kind: str, size: int, options: argparse.Namespace, journal: Journal) -> Run:
    """Sample the two workers of a flow."""
    trouble = _perf_trouble()
    if trouble:
        raise MissingError(trouble)
    contender = GuestBulkhead if kind == VHOST else Bulkhead
    with contender() as way, tempfile.TemporaryDirectory(prefix="bh-") as directory:
        way.start(kind, 2, size)
        way.meet(1, 2)
        pids = way.forwarders()
        data = Path(directory) / "perf.data"
        before = [proc.cpu_ns([pid]) for pid in pids]
        with _sampling(pids, data, options.frequency), journal.during(options.seconds, "flow"):
            flow = generator.flow(kind, size, options.seconds, way.pair(1, 2))
        used = [proc.cpu_ns([pid]) - base for pid, base in zip(pids, before, strict=True)]
        words = ["perf", "script", "-i", str(data), "-F", "pid,ip,sym,dso"]
        script = subprocess.run(words, capture_output=True, text=True, check=True, errors="replace").stdout
    samples = list(stacks.read_perf(script.splitlines()))
    if not samples or not flow["received"]:
        raise RuntimeError(f"{len(samples)} samples of {flow['received']} frames tell nothing")
    _save_folded(samples, pids, options.output / f"profile-{kind}-{size}.folded")
    return {
        "frames": flow["received"],
        "frames_per_second": flow["received"] / flow["seconds"],
        "samples": len(samples),
        "cpu_ns": dict(zip(("sender", "receiver"), used, strict=True)),
        "categories": {
            role: Counter(stacks.category(sample.stack) for sample in samples if sample.pid == pid)
            for role, pid in zip(("sender", "receiver"), pids, strict=True)
        },
        "functions": _functions((stacks.category(sample.stack), sample.function, 1) for sample in samples),
    }


@contextlib.contextmanager
def _sampling(pids: Sequence[int], data: Path, frequency: int) -> Iterator[None]:
    """Have perf sample these processes, from before the first frame; at the end its file is complete."""
    with contextlib.ExitStack() as stack:
        theirs, command = os.pipe()
        answer, their_answer = os.pipe()
        for end in (command, answer):
            stack.callback(os.close, end)
        words = ["perf", "record", "-q", "-N", "-g", "-e", "cpu-clock", "-F", str(frequency), "-o", str(data)]
        words += ["-D", "-1", "--control", f"fd:{theirs},{their_answer}", "-p", ",".join(map(str, pids))]
        try:
            perf = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs, their_answer),
            )
        finally:
            os.close(theirs)
            os.close(their_answer)
        stack.callback(perf.communicate)
        stack.callback(perf.kill)
        os.write(command, b"enable\n")
        ready, _, _ = select.select([answer], [], [], PERF_PATIENCE)
        if ready and os.read(answer, 16):
            yield
            perf.send_signal(signal.SIGINT)
        _, said = perf.communicate(timeout=PERF_PATIENCE)
        if not ready or perf.returncode not in (0, -signal.SIGINT):
            raise RuntimeError(f"perf: {said.decode(errors='replace').strip()}")


def _save_folded(samples: Iterable[stacks.Sample], pids: Sequence[int], path: Path) -> None:
    """Save stacks in the format that tools for flame graphs read: outermost first, and how often."""
    roles = {pids[0]: "sender's worker", pids[1]: "receiver's worker"}
    counted = Counter(
        ";".join([roles.get(sample.pid, "?"), *(function for function, _ in reversed(sample.stack))])
        for sample in samples
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{stack} {count}\n" for stack, count in sorted(counted.items())))


def _by_callgrind(kind: str, size: int) -> Run:
    """Count the instructions of two engines in one process that valgrind runs."""
    if kind == VHOST:
        raise MissingError("a guest has two processes, which only perf samples")
    if shutil.which("valgrind") is None or shutil.which("callgrind_annotate") is None:
        raise MissingError(f"{_perf_trouble() or 'callgrind was asked for'}, and there is no valgrind")
    with tempfile.TemporaryDirectory(prefix="bh-") as directory:
        out = Path(directory) / "callgrind.out"
        words: list[str | Path] = ["valgrind", "-q", "--tool=callgrind", "--toggle-collect=engine_run"]
        words += [f"--callgrind-out-file={out}", sys.executable, "-m", "scripts.benchmarks.drive_core"]
        words += [kind, str(size), str(DRIVEN_FRAMES)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300, env=environment)
        listing = subprocess.run(
            ["callgrind_annotate", "--auto=no", out], capture_output=True, text=True, check=True
        ).stdout
    functions = [
        (stacks.category([(function, file)]), function, count)
        for count, function, file in stacks.read_callgrind(listing.splitlines())
    ]
    categories = Counter[str]()
    for name, _, count in functions:
        categories[name] += count
    frames = int(done.stdout.split()[-1])
    if not frames or not functions:
        raise RuntimeError(f"{len(functions)} functions and {frames} forwarded frames tell nothing")
    return {"frames": frames, "categories": {"both": categories}, "functions": _functions(functions)}


def _functions(counted: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    """Add up functions by category, those that occur most first."""
    sums: dict[str, Counter[str]] = {}
    for name, function, count in counted:
        sums.setdefault(name, Counter())[function] += count
    return {name: dict(counter.most_common()) for name, counter in sums.items()}


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each category, the largest first, and one of their sum."""
    for run in journal.runs:
        start = f"{run['kind']}, {run['size']:,} B"
        trouble = journal.trouble(kind=run["kind"], size=run["size"])
        if trouble:
            yield start, trouble
            continue
        parts = _parts(run)
        for name in ["all", *sorted(parts, key=lambda name: -sum(parts[name].values()))]:
            yield (start, name, *_cells(run, parts, name))


def _parts(run: Run) -> dict[str, dict[str, float]]:
    """Return what a frame needs in each category, by worker: ns, or instructions."""
    parts: dict[str, dict[str, float]] = {}
    for role, counts in run["categories"].items():
        whole = run["cpu_ns"][role] if "cpu_ns" in run else sum(counts.values())
        for name, count in counts.items():
            parts.setdefault(name, {})[role] = whole * count / sum(counts.values()) / run["frames"]
    return parts


def _cells(run: Run, parts: dict[str, dict[str, float]], name: str) -> Iterable[str]:
    chosen = list(parts.values()) if name == "all" else [parts[name]]
    by_role = {role: sum(part.get(role, 0.0) for part in chosen) for role in run["categories"]}
    both, whole = sum(by_role.values()), sum(sum(part.values()) for part in parts.values())
    yield f"{100 * both / whole:.1f}"
    if "both" in by_role:
        yield from (NOTHING, NOTHING, NOTHING, f"{both:,.0f}")
    else:
        yield from (f"{both:,.0f}", f"{by_role['sender']:,.0f}", f"{by_role['receiver']:,.0f}", NOTHING)
    functions = run["functions"].get(name, {})
    share = 100 / sum(sum(each.values()) for each in run["functions"].values())
    top = list(functions.items())[:TOP]
    yield ", ".join(f"{function} {count * share:.1f} %" for function, count in top) or NOTHING


def draw(journal: Journal) -> Any:
    """Draw a bar of each case, made of its categories."""
    runs = [run for run in journal.runs if "cpu_ns" in run]
    if not runs:
        return None
    figure, cell = plots.bars(len(runs))
    names = [f"{run['kind']}, {run['size']:,} B" for run in runs]
    left = [0.0] * len(runs)
    for name in stacks.CATEGORIES:
        widths = [sum(_parts(run).get(name, {}).values()) for run in runs]
        cell.barh(names, widths, left=left, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    cell.invert_yaxis()
    cell.set_xlabel("CPU ns a frame, both workers")
    cell.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


BENCHMARK = Benchmark(
    "profile",
    "where the workers' time goes for each frame, by function",
    "Samples the two workers of a closed-loop flow with perf, and says what a frame costs in each part of"
    " the path: the share of samples, times the CPU that the kernel charged. Where interrupts are off no"
    " sample is taken, and the time shows where they are switched on again (finish_task_switch,"
    " spin_unlock_irq). Saves the stacks as profile-KIND-SIZE.folded, which tools for flame graphs read."
    " Where perf is missing or may not sample, callgrind counts the core's instructions instead: nothing of"
    " the kernel, and no time.",
    COLUMNS,
    arguments,
    measure,
    rows,
    draw,
)

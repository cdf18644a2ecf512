"""The table of ``isolation``: what was measured, and whether it holds what was promised.

A promise is held if the median of the rounds' ratios keeps the bound: each ratio is between two runs of one
round, on one switch, a few seconds apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from scripts.benchmarks.forward import lost, rate
from scripts.benchmarks.report.figures import NOTHING, median, spread
from scripts.benchmarks.report.journal import Journal, Run

SILENT, READS, STUCK = "D is silent", "B reads", "B is stuck"
STORM, STORM_OFF = "D floods", "D floods, no storm control"
LONG = "D sends C frames beyond its MTU"
SOUND, HOSTILE = "D's queues are sound", "D rewrites its queues"
ONE, MANY, FLOOD, OFFLOAD = "one", "many", "flood", "offload"
GUEST, QUEUES, JUMBO = "guest", "queues", "jumbo"
COLUMNS = (
    "row", "frames", "switch", "VMs", "meanwhile", "A→C M frames/s", "Gbit/s", "of silent", "lost",
    "round trip p50 µs", "of silent", "p99 µs", "of silent",
    "D sent frames/s", "B's worker CPU %", "drops at B", "drops at D", "drops elsewhere", "must hold", "held",
)  # fmt: skip


class Row(NamedTuple):
    """What is compared, and what must hold in the case that is judged."""

    title: str
    cases: tuple[str, ...]
    judged: str
    rate: float
    """A→C gets at least that part of what it gets while D is silent."""
    trips: float | None = None
    """Round trips, p50 and p99, take at most that many times as long."""
    cpu: float | None = None
    """B's worker takes less than that, in percent of a core."""
    drops: bool = False
    """Nothing is lost but at B."""

    def bounds(self) -> str:
        """Say what must hold."""
        words = [f"rate ≥ {self.rate:.2f}"]
        words += [f"p50, p99 ≤ {self.trips:g}"] if self.trips else []
        words += [f"CPU < {self.cpu:g} %"] if self.cpu else []
        return ", ".join([*words, *(["drops only at B"] if self.drops else [])])


ROWS = {
    ONE: Row("B is one VM", (SILENT, READS, STUCK), STUCK, 0.95, 1.5, 5.0, drops=True),
    MANY: Row("B is {stuck} VMs", (SILENT, READS, STUCK), STUCK, 0.90, None, 5.0, drops=True),
    FLOOD: Row("D broadcasts", (SILENT, STORM, STORM_OFF), STORM, 0.80),
    OFFLOAD: Row(
        "D sends B 64 KiB for the switch to cut",
        (SILENT, READS, STUCK),
        STUCK,
        0.95,
        None,
        5.0,
        drops=True,
    ),
    GUEST: Row(
        "all share their memory, B posts no buffers",
        (SILENT, READS, STUCK),
        STUCK,
        0.95,
        None,
        1.0,
        drops=True,
    ),
    JUMBO: Row("D sends C frames of 9,014 B, C takes 1,514 B", (SILENT, LONG), LONG, 0.95, drops=True),
    QUEUES: Row("D shares its memory, and rewrites its queues", (SILENT, SOUND, HOSTILE), HOSTILE, 0.95),
}
"""The rows of the table by the name that they have on the command line."""


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a line of each case of each switch in each row."""
    size = journal.options.size
    groups = dict.fromkeys((run["row"], run["kind"], run["way"], run["vms"]) for run in journal.runs)
    for key in sorted(groups, key=lambda group: list(ROWS).index(group[0])):
        row, what = ROWS[key[0]], dict(zip(("row", "kind", "way"), key, strict=False))
        title = row.title.format(stuck=journal.options.stuck)
        start = (title, f"{what['kind']}, {size:,} B", what["way"], f"{key[3]}")
        trouble = journal.trouble(**what)
        if trouble:
            yield (*start, trouble)
            continue
        for case in row.cases:
            trouble = journal.trouble(**what, case=case)
            bases = journal.of(**what, case=SILENT)
            runs = journal.of(**what, case=case)
            judged = (NOTHING, NOTHING)
            if case == row.judged and not trouble:
                judged = (row.bounds(), verdict(row, runs, bases, journal.of(**what, case=READS)))
            yield (
                (*start, case, trouble)
                if trouble
                else (*start, case, *_cells(runs, bases, case, size), *judged)
            )


def _echo(mark: str) -> Callable[[Run], float | None]:
    return lambda run: run.get("echo", {}).get(mark)


def _cpu(run: Run) -> float | None:
    used: float | None = run.get("disturbance", {}).get("b_cpu")
    return used


def _ratios(runs: list[Run], bases: list[Run], value: Callable[[Run], float | None]) -> list[float]:
    """Return the ratios of the rounds that have both values."""
    known = {base["round"]: value(base) for base in bases}
    pairs = [(value(run), known.get(run["round"])) for run in runs]
    return [one / base for one, base in pairs if one is not None and base]


def _cells(runs: list[Run], bases: list[Run], case: str, size: int) -> Iterable[str]:
    """Make the cells of a case that was measured."""
    compared = case != SILENT
    yield median(map(rate, runs), 3, 1e-6)
    yield median(map(rate, runs), 2, size * 8e-9)
    yield spread(_ratios(runs, bases, rate)) if compared else NOTHING
    yield lost(runs)
    for mark in ("p50_ns", "p99_ns"):
        ours = [_echo(mark)(run) for run in runs]
        # A path that answers nothing has no round trip; that is a result, too.
        none = compared and all(value is None for value in ours)
        yield "no answer" if none else median(ours, 1, 1e-3)
        yield spread(_ratios(runs, bases, _echo(mark))) if compared else NOTHING
    told = [run.get("disturbance", {}) for run in runs]
    yield median([each["sent"] / each["seconds"] if "sent" in each else None for each in told], 0)
    yield spread(map(_cpu, runs), 1)
    known = [run for run in runs if "drops" in run]
    yield from (f"{count:,}" for count in _drops(known)) if known else [NOTHING] * 3


def _drops(runs: list[Run]) -> tuple[int, int, int]:
    """Return the frames dropped at B, at D and elsewhere."""
    at_b = sum(run["drops"].get(port, 0) for run in runs for port in run["b_ports"])
    at_d = sum(run["drops"].get(run["d_port"], 0) for run in runs)
    return at_b, at_d, sum(sum(run["drops"].values()) for run in runs) - at_b - at_d


def verdict(row: Row, runs: list[Run], bases: list[Run], readers: list[Run]) -> str:
    """Say whether a row's promises are held, and if not, which one by how much.

    Where the rate is not, it is also said what it is of the rate while B reads: what D's sending costs is
    the machine's time, and only the rest is the price of being stuck.
    """
    broken = []
    rates = _ratios(runs, bases, rate)
    if not rates or statistics.median(rates) < row.rate:
        beside = _ratios(runs, readers, rate)
        aside = f", {statistics.median(beside):.2f} of '{READS}'" if beside else ""
        broken.append(f"rate {statistics.median(rates):.2f}{aside}" if rates else "no rate")
    for mark in ("p50_ns", "p99_ns") if row.trips else ():
        trips = _ratios(runs, bases, _echo(mark))
        if not trips or statistics.median(trips) > (row.trips or 0):
            broken.append(f"{mark[:3]} {statistics.median(trips):.2f}" if trips else f"{mark[:3]} no answer")
    used = [cpu for cpu in map(_cpu, runs) if cpu is not None]
    if row.cpu and used and statistics.median(used) >= row.cpu:
        broken.append(f"CPU {statistics.median(used):.1f} %")
    _, at_d, elsewhere = _drops([run for run in runs if "drops" in run])
    if row.drops and at_d + elsewhere:
        broken.append(f"{at_d + elsewhere:,} drops elsewhere")
    if any(run.get("lost") for run in runs) and row.drops:
        broken.append(f"lost {lost(runs)}")
    return f"not held: {'; '.join(broken)}" if broken else "held"

"""``scale``: the cost of many VMs, from 2 to 250, on one switch."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scripts.benchmarks import crowd
from scripts.benchmarks.attach import until_heard
from scripts.benchmarks.forward import rate
from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.sockets import Bulkhead
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import plots, proc
from scripts.benchmarks.report.figures import NOTHING, known_median, median, percentile, ratios
from scripts.benchmarks.report.journal import Benchmark, Journal, Run
from tests.helpers.guests.watching import ask, kill_supervisor, live

ATTACH, IDLE, JOIN, PAIR, BROADCAST, TAKEOVER = "attach", "idle", "join", "pair", "broadcast", "takeover"
PARTS = {ATTACH: 3, IDLE: 4, JOIN: 1, PAIR: 5, BROADCAST: 3, TAKEOVER: 3}
"""What is measured with so many VMs, in this order, and how many columns it has."""
COLUMNS = (
    "VMs",
    "attach median ms", "p99 ms", "slowest ms",
    "PSS MiB a worker", "descriptors a worker", "supervisor's PSS MiB", "idle CPU of all, % of a core",
    "join heard by all ms",
    "pair Gbit/s, others idle", "of alone", "round trip, of alone", "pairs work: of alone",
    "round trip, of alone",
    "broadcast µs CPU a receiver", "last receiver ms", "heard",
    "next supervisor ready ms", "all live ms", "newcomer heard by all ms",
)  # fmt: skip
MIB = 1 << 20
ALONE, OTHERS_IDLE, PAIRS_WORK = "alone", "others idle", "pairs work"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--vms", type=choose.vms, action="append", help="more than once for several (2, 10, 50, 100, 250)"
    )
    parser.add_argument(
        "--kind", choices=("stream", "seqpacket"), default="stream", help="of socket (%(default)s)"
    )
    parser.add_argument(
        "--pause", type=choose.seconds, default=0.2, help="s between two VMs that attach (%(default)s)"
    )
    parser.add_argument("--settle", type=choose.seconds, default=2.0, help="s before idle (%(default)s)")
    parser.add_argument("--idle", type=choose.seconds, default=5.0, help="s to watch idle VMs (%(default)s)")
    parser.add_argument("--joins", type=choose.count, default=5, help="of one more VM (%(default)s)")
    parser.add_argument("--rounds", type=choose.count, default=3, help="of the pair's flow (%(default)s)")
    parser.add_argument("--seconds", type=choose.seconds, default=1.0, help="of each flow (%(default)s)")
    parser.add_argument("--size", type=choose.frame_size, default=1514, help="bytes of a frame (%(default)s)")
    parser.add_argument("--pairs", type=choose.count, default=10, help="that work (%(default)s)")
    parser.add_argument(
        "--pair-rate",
        type=choose.frame_rate,
        default=1000,
        help="frames a second of each of these (%(default)s); the more, the more of the machine's cores they"
        " take from the first pair",
    )
    parser.add_argument("--broadcasts", type=choose.count, default=100, help="of one VM (%(default)s)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Let one switch grow, and measure at each size; beside it is one of two VMs to compare with."""
    options.vms = sorted(set(options.vms or (2, 10, 50, 100, 250)))
    options.vms = [max(2, vms) for vms in options.vms]
    journal.expect(len(options.vms) * len(PARTS))
    with Bulkhead() as way, Bulkhead() as alone:
        alone.start(options.kind, 2, options.size)
        alone.meet(1, 2)
        way.listen(options.kind, max(options.vms))
        way.plug(1)
        way.announce()
        way.switch.wait_live(1)
        for vms in options.vms:
            _measure(way, alone, vms, options, journal)


def _measure(way: Bulkhead, alone: Bulkhead, vms: int, options: argparse.Namespace, journal: Journal) -> None:
    idle_cpu = 0.0
    with journal.run(vms=vms, part=ATTACH) as run:
        run.update(_attach(way, vms, options.pause))
    with journal.run(vms=vms, part=IDLE) as run:
        run.update(_idle(way, options, journal))
        idle_cpu = run["workers_cpu"]
    with journal.run(vms=vms, part=JOIN) as run:
        run["seconds"] = [crowd.join(way, vms + 1) for _ in range(options.joins)]
    with journal.run(vms=vms, part=PAIR) as run:
        run["rounds"] = [_pair(way, alone, vms, options) for _ in range(options.rounds)]
    with journal.run(vms=vms, part=BROADCAST) as run:
        run.update(crowd.broadcasts(way, options.broadcasts, idle_cpu))
    with journal.run(vms=vms, part=TAKEOVER) as run:
        run.update(_takeover(way, vms))


def _attach(way: Bulkhead, vms: int, pause: float) -> Run:
    took = []
    for number in range(len(way.vms) + 1, vms + 1):
        time.sleep(pause)
        heard = until_heard(way, [number])
        if not heard:
            raise RuntimeError(f"VM {number} was not heard")
        took.append(heard[number][0])
    live(way.switch, vms)
    way.meet(1, 2)
    return {"seconds": took}


def _idle(way: Bulkhead, options: argparse.Namespace, journal: Journal) -> Run:
    with journal.during(options.settle + options.idle, "idle"):
        time.sleep(options.settle)
        workers = [port["worker"]["pid"] for port in ask(way.switch)["ports"]]
        processes = way.switch.processes()
        began, before, before_all = time.monotonic(), proc.cpu_ns(workers), proc.cpu_ns(processes)
        time.sleep(options.idle)
        passed = time.monotonic() - began
        used, used_all = proc.cpu_ns(workers) - before, proc.cpu_ns(processes) - before_all
    assert way.switch.process is not None
    return {
        "workers_cpu": used * 1e-9 / passed,
        "cpu": used_all * 1e-9 / passed,
        "pss": [proc.memory(pid)[0] for pid in workers],
        "descriptors": [proc.descriptors(pid) for pid in workers],
        "supervisor_pss": proc.memory(way.switch.process.pid)[0],
    }


def _pair(way: Bulkhead, alone: Bulkhead, vms: int, options: argparse.Namespace) -> Run:
    """Run a flow from the first VM to the second in each case, one after the other."""
    done = {ALONE: _flow(alone, options), OTHERS_IDLE: _flow(way, options)}
    if vms >= 2 + 2 * options.pairs:
        for number in range(3, 3 + 2 * options.pairs, 2):
            way.meet(number, number + 1)
        with crowd.working(way, options.pairs, options.size, options.pair_rate) as others:
            flow = _flow(way, options)
        done[PAIRS_WORK] = {**flow, "others": others}
    return done


def _flow(way: Bulkhead, options: argparse.Namespace) -> Run:
    pair = way.pair(1, 2)
    flow = generator.flow(options.kind, options.size, options.seconds, pair)
    return {**flow, "echo": generator.echo(options.kind, options.size, options.seconds / 2, pair)}


def _takeover(way: Bulkhead, vms: int) -> Run:
    """Kill the supervisor and start the next one; the clock runs from its start."""
    kill_supervisor(way.switch)
    began = time.monotonic()
    way.switch.start(*way.flags)
    ready = time.monotonic() - began
    live(way.switch, vms)
    all_live = time.monotonic() - began
    crowd_began = time.monotonic() - began
    return {"ready": ready, "live": all_live, "heard": crowd_began + crowd.join(way, vms + 1)}


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each number of VMs; a part that was not measured says so in its first column."""
    for vms in dict.fromkeys(run["vms"] for run in journal.runs):
        cells = [f"{vms:,}"]
        for part, width in PARTS.items():
            trouble = journal.trouble(vms=vms, part=part)
            known = [trouble] if trouble else list(_CELLS[part](journal.of(vms=vms, part=part)[0], journal))
            cells += known + [NOTHING] * (width - len(known))
        yield cells


def _attach_cells(run: Run, _: Journal) -> Iterable[str]:
    times = [seconds * 1e3 for seconds in run["seconds"]]
    if times:
        yield from (
            f"{statistics.median(times):,.1f}",
            f"{percentile(times, 0.99):,.1f}",
            f"{max(times):,.1f}",
        )


def _idle_cells(run: Run, _: Journal) -> Iterable[str]:
    yield median(run["pss"], 2, 1 / MIB)
    yield median(run["descriptors"], 0)
    yield median([run["supervisor_pss"]], 1, 1 / MIB)
    yield f"{100 * run['cpu']:.2f}"


def _join_cells(run: Run, _: Journal) -> Iterable[str]:
    yield median(run["seconds"], 1, 1e3)


def _pair_cells(run: Run, journal: Journal) -> Iterable[str]:
    alone, idle, work = (
        [each[case] for each in run["rounds"] if case in each] for case in (ALONE, OTHERS_IDLE, PAIRS_WORK)
    )
    yield median(map(rate, idle), 2, journal.options.size * 8e-9)
    for group in (idle, work):
        yield ratios(map(rate, group), map(rate, alone))
        yield ratios(map(_p50, group), map(_p50, alone))


def _p50(flow: Run) -> float | None:
    value: float | None = flow["echo"].get("p50_ns")
    return value


def _broadcast_cells(run: Run, _: Journal) -> Iterable[str]:
    yield median([run["cpu_per_receiver"]], 2, 1e6)
    yield f"{run['last_heard'] * 1e3:,.2f}"
    yield f"{run['heard']:,} of {run['wanted']:,}"


def _takeover_cells(run: Run, _: Journal) -> Iterable[str]:
    for key in ("ready", "live", "heard"):
        yield f"{run[key] * 1e3:,.0f}"


_CELLS = {
    ATTACH: _attach_cells,
    IDLE: _idle_cells,
    JOIN: _join_cells,
    PAIR: _pair_cells,
    BROADCAST: _broadcast_cells,
    TAKEOVER: _takeover_cells,
}


DRAWN: dict[str, tuple[str, Callable[[Run], float | None], float]] = {
    "attach, median ms": (ATTACH, lambda run: known_median(run["seconds"]), 1e3),
    "idle CPU of all, % of a core": (IDLE, lambda run: run["cpu"], 100.0),
    "join heard by all, ms": (JOIN, lambda run: known_median(run["seconds"]), 1e3),
    "broadcast, µs CPU a receiver": (BROADCAST, lambda run: run["cpu_per_receiver"], 1e6),
}


def draw(journal: Journal) -> Any:
    """Draw what grows with the number of VMs."""
    sizes = list(dict.fromkeys(run["vms"] for run in journal.runs))
    if len(sizes) < 2:
        return None
    figure, axes = plots.grid(2, 2)
    for cell, (title, (part, value, scale)) in zip(axes.flat, DRAWN.items(), strict=True):
        points = [
            (run["vms"], height * scale)
            for run in journal.of(part=part)
            if "failed" not in run and (height := value(run)) is not None
        ]
        cell.plot([vms for vms, _ in points], [height for _, height in points], marker="o")
        cell.set_title(title, fontsize="medium")
        cell.set_xlabel("VMs")
        cell.set_ylim(bottom=0)
        cell.grid(visible=True, alpha=0.3)
    return figure


BENCHMARK = Benchmark(
    "scale",
    "what it costs that there are many VMs: attaching, memory, idle CPU, joins, broadcasts, takeover",
    "One switch grows. With each number of VMs: how long those that came last took from their connect to the"
    "  first frame, what all need while nothing happens, how long until all VMs hear a broadcast of a VM"
    "  that has just joined, what the first two VMs keep of the rate that a pair alone on another switch has"
    " in the same round, what a broadcast costs the workers for each VM that gets it, and, after the"
    " supervisor was killed, how long until the next one is ready, all its ports are live again, and a VM"
    " that joins then was heard by all.",
    COLUMNS,
    arguments,
    measure,
    rows,
    draw,
)

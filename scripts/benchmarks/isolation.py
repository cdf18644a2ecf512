"""``isolation``: what a pair of VMs loses while others are stuck."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks import generator, proc
from scripts.benchmarks import options as choose
from scripts.benchmarks.contenders import KINDS, Bulkhead, Contender
from scripts.benchmarks.figures import NOTHING, median, ratios, spread
from scripts.benchmarks.forward import lost, rate
from scripts.benchmarks.journal import Benchmark, Journal, Run
from scripts.benchmarks.peers import Gvproxy, VdeSwitch
from tests.guests.fake_vm import mac

CONTENDERS: tuple[type[Contender], ...] = (Bulkhead, VdeSwitch, Gvproxy)
ALONE, READS, STUCK = "D is silent", "B reads", "B is stuck"
CASES = (ALONE, READS, STUCK)
# The VMs by number: A sends to C, D sends to B, which may be several; the rest are idle.
A, C, D, B = 1, 2, 3, 4
COLUMNS = (
    "frames", "switch", "VMs", "meanwhile", "A→C M frames/s", "Gbit/s", "of silent", "lost",
    "round trip p50 µs", "of silent", "p99 µs", "of silent",
    "D sent frames/s", "B's worker CPU %", "drops at B", "drops elsewhere",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append", help="of socket, more than once for several (stream)"
    )
    parser.add_argument("--size", type=choose.frame_size, default=1514, help="bytes of a frame (%(default)s)")
    parser.add_argument(
        "--rounds", type=choose.count, default=5, help="alternating runs of each case (%(default)s)"
    )
    parser.add_argument("--seconds", type=choose.seconds, default=2.0, help="of flow in a run (%(default)s)")
    parser.add_argument("--stuck", type=choose.vms, default=1, help="how many VMs B stands for (%(default)s)")
    parser.add_argument(
        "--vms", type=choose.vms, default=4, help="in all, at least 3 + the stuck (%(default)s)"
    )
    parser.add_argument(
        "--stuck-rate",
        type=choose.frame_rate,
        default=10_000,
        help="frames a second that D sends (%(default)s); 0: as many as its socket takes, and then D and its"
        " worker also compete with A and C for the machine's cores, which is what 'B reads' tells apart",
    )
    parser.add_argument("--gvproxy", type=Path, metavar="PATH", help="a gvproxy binary to compare with")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all cases; every run has a switch of its own, so that what is stuck in it ends with it."""
    options.kind = options.kind or ["stream"]
    options.vms = max(options.vms, 3 + options.stuck)
    Gvproxy.binary = options.gvproxy
    for kind, number in itertools.product(options.kind, range(options.rounds)):
        for contender, case in itertools.product(CONTENDERS, CASES):
            what = {"kind": kind, "way": contender.name, "case": case, "round": number}
            with journal.run(**what) as run, contender() as way:
                _measure(way, kind, case, options, run)


def _measure(way: Contender, kind: str, case: str, options: argparse.Namespace, run: Run) -> None:
    way.start(kind, options.vms, options.size)
    way.meet(A, C)
    if case != STUCK:
        for number in range(B, B + options.stuck):
            way.meet(D, number)
    before = _observe(way, options)
    with _disturbed(way, case, options) as disturbance:
        pair = way.pair(A, C)
        run.update(generator.flow(kind, options.size, options.seconds, pair))
        if not run["cut"]:  # a stream that stopped within a frame carries nothing any more
            run["echo"] = generator.echo(kind, options.size, options.seconds / 2, pair)
        run["disturbance"] = disturbance
        disturbance["b_cpu"] = _b_cpu(before)
    after = _observe(way, options)
    if before and after:
        run["drops"] = {port: after["drops"][port] - before["drops"].get(port, 0) for port in after["drops"]}
        run["b_ports"] = after["b_ports"]


@contextlib.contextmanager
def _disturbed(way: Contender, case: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Have D send to B meanwhile, and B read or not; what they did is filled in afterwards."""
    done: dict[str, Any] = {}
    if case == ALONE:
        yield done
        return
    with contextlib.ExitStack() as stack:
        numbers = range(B, B + options.stuck) if case == READS else ()
        for number in numbers:
            vm = way.vms[number - 1]
            stack.enter_context(generator.running("sink", (way.kind, vm.sock.fileno()), [vm]))
        sender = way.vms[D - 1]
        addresses = (mac(D).hex(":"), mac(B).hex(":"))
        words = (way.kind, options.size, options.stuck_rate, sender.sock.fileno(), *addresses, options.stuck)
        flood = stack.enter_context(generator.running("flood", words, [sender]))
        begun = time.monotonic()
        yield done
        done.update(generator.stop(flood))
        done["seconds"] = time.monotonic() - begun


def _observe(way: Contender, options: argparse.Namespace) -> dict[str, Any]:
    """Return what our switch knows: frames dropped by port, B's ports, B's workers and their CPU time now."""
    if not isinstance(way, Bulkhead):
        return {}
    where = way.ports()
    b_ports = [where[number] for number in range(B, B + options.stuck)]
    ports = way.switch.ports()
    workers = [port["worker"]["pid"] for port in ports if port["port"] in b_ports]
    return {
        "drops": {str(port["port"]): sum(port["drops"].values()) for port in ports},
        "b_ports": [str(port) for port in b_ports],
        "workers": workers,
        "cpu": proc.cpu_ns(workers),
        "at": time.monotonic(),
    }


def _b_cpu(before: dict[str, Any]) -> float | None:
    """Return what B's workers have used since, in percent of a core, all together."""
    if not before:
        return None
    used = proc.cpu_ns(before["workers"]) - before["cpu"]
    return float(used / 1e7 / (time.monotonic() - before["at"]))


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each case of each switch."""
    for kind in dict.fromkeys(run["kind"] for run in journal.runs):
        for contender in CONTENDERS:
            start = (f"{kind}, {journal.options.size:,} B", contender.name, f"{journal.options.vms}")
            trouble = journal.trouble(kind=kind, way=contender.name)
            if trouble:
                yield (*start, trouble)
                continue
            for case in CASES:
                trouble = journal.trouble(kind=kind, way=contender.name, case=case)
                runs = journal.of(kind=kind, way=contender.name, case=case)
                bases = journal.of(kind=kind, way=contender.name, case=ALONE)
                yield (
                    (*start, case, trouble)
                    if trouble
                    else (*start, case, *_cells(runs, bases, case, journal))
                )


def _cells(runs: list[Run], bases: list[Run], case: str, journal: Journal) -> Iterable[str]:
    """Make the cells of a case that was measured."""
    compared = case != ALONE
    yield median(map(rate, runs), 3, 1e-6)
    yield median(map(rate, runs), 2, journal.options.size * 8e-9)
    yield ratios(map(rate, runs), map(rate, bases)) if compared else NOTHING
    yield lost(runs)
    for mark in ("p50_ns", "p99_ns"):
        ours, theirs = ([run.get("echo", {}).get(mark) for run in group] for group in (runs, bases))
        # A path that answers nothing has no round trip; that is a result, too.
        none = compared and all(value is None for value in ours)
        yield "no answer" if none else median(ours, 1, 1e-3)
        yield ratios(ours, theirs) if compared else NOTHING
    told = [run.get("disturbance", {}) for run in runs]
    yield median([each["sent"] / each["seconds"] if "sent" in each else None for each in told], 0)
    yield spread([each.get("b_cpu") for each in told], 1)
    known = [run for run in runs if "drops" in run]
    if not known:
        yield from (NOTHING, NOTHING)
        return
    at_b = sum(run["drops"].get(port, 0) for run in known for port in run["b_ports"])
    yield f"{at_b:,}"
    yield f"{sum(sum(run['drops'].values()) for run in known) - at_b:,}"


BENCHMARK = Benchmark(
    "isolation",
    "what a pair of VMs loses while another does not read",
    "A sends to C, closed-loop, then they measure round trips; meanwhile D is silent, or sends to B which"
    " reads, or sends to B which never reads. 'of silent' compares with the run of the same round in"
    " which D is silent; what 'B is stuck' costs beyond 'B reads' is the price of being stuck. The same"
    " against other switches, where they are: each is one process for all its VMs.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

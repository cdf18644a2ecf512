"""``isolation``: what a pair of VMs loses while another does not read, or floods.

Within a round all cases of a row run on one switch, one after the other and each for a moment only, so that
they differ in nothing but what is compared. A VM that sends in one case is silent in all others. What the
others send is paced, except for a flood: a sender without a pause would compete with the pair for the
machine's cores, which is no matter of the switch.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

from scripts.benchmarks.isolation_disturbance import MSS, SENDER, A, B, C, Setting, disturbed
from scripts.benchmarks.isolation_table import (
    COLUMNS,
    FLOOD,
    GUEST,
    JUMBO,
    MANY,
    OFFLOAD,
    ONE,
    QUEUES,
    READS,
    ROWS,
    STORM_OFF,
    STUCK,
    rows,
)
from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.guests import VHOST, GuestBulkhead
from scripts.benchmarks.lab.sockets import KINDS, Bulkhead, Contender
from scripts.benchmarks.lab.switches import Gvproxy, VdeSwitch
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import proc
from scripts.benchmarks.report.journal import Benchmark, Journal, Run
from tests.helpers.guests.watching import ask

CONTENDERS: dict[str, tuple[type[Contender], ...]] = {
    ONE: (Bulkhead, VdeSwitch, Gvproxy),
    MANY: (Bulkhead,),
    FLOOD: (Bulkhead,),
    OFFLOAD: (Bulkhead,),
    GUEST: (GuestBulkhead,),
    QUEUES: (Bulkhead,),
    JUMBO: (Bulkhead,),
}
LEAST_VMS = 5
WARM_UP = 0.2
ROUNDS_OF_A_SWITCH = 3
"""Then it is another one: how well its processes lie in memory and on cores is luck."""
KRUNKIT = "dgram"
"""The socket of VMs that leave segments to the switch."""
OWN_KINDS = {OFFLOAD: KRUNKIT, GUEST: VHOST}
"""Rows whose VMs are all of one kind, whatever is asked for."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--row", choices=list(ROWS), action="append", help="of the table, more than once for several (all)"
    )
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append",
        help="of socket in the first row, more than once for several (all)",
    )  # fmt: skip
    parser.add_argument("--size", type=choose.frame_size, default=1514, help="bytes of a frame (%(default)s)")
    parser.add_argument(
        "--rounds", type=choose.count, default=12, help="alternating runs of each case (%(default)s)"
    )
    parser.add_argument("--seconds", type=choose.seconds, default=0.3, help="of flow in a run (%(default)s)")
    parser.add_argument(
        "--stuck", type=choose.vms, default=20, help="VMs that do not read in the second row (%(default)s)"
    )
    parser.add_argument(
        "--vms",
        type=choose.vms,
        default=40,
        help="in all in the second row, at least 4 + stuck (%(default)s)",
    )
    parser.add_argument(
        "--stuck-rate",
        type=choose.frame_rate,
        default=10_000,
        help="frames a second that D sends to B (%(default)s); 0: as many as its socket takes, and then D and"
        " its worker also compete with A and C for the machine's cores, which is what 'B reads' tells apart",
    )
    parser.add_argument("--gvproxy", type=Path, metavar="PATH", help="a gvproxy binary to compare with")


class Plugged(NamedTuple):
    """A switch with its VMs, and at which ports they are, where that is known."""

    way: Contender
    ports: dict[int, int]


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all rows, round after round."""
    options.row = options.row or list(ROWS)
    options.kind = options.kind or list(KINDS)
    options.vms = max(options.vms, LEAST_VMS - 1 + options.stuck)
    Gvproxy.binary = options.gvproxy
    settings = [
        Setting(row, kind, way, *((options.vms, options.stuck) if row == MANY else (LEAST_VMS, 1)))
        for row in options.row
        for kind in _kinds(row, options)
        for way in CONTENDERS[row]
    ]
    journal.expect(options.rounds * sum(len(ROWS[setting.row].cases) for setting in settings))
    for first in range(0, options.rounds, ROUNDS_OF_A_SWITCH):
        for setting in settings:
            numbers = range(first, min(first + ROUNDS_OF_A_SWITCH, options.rounds))
            _rounds(setting, numbers, options, journal)


def _kinds(row: str, options: argparse.Namespace) -> list[str]:
    if row in OWN_KINDS:
        return [OWN_KINDS[row]]
    return list(options.kind if row == ONE else options.kind[:1])


def _rounds(setting: Setting, numbers: range, options: argparse.Namespace, journal: Journal) -> None:
    """Run the cases of a row in turn, on one switch as long as the pair's links are whole."""
    with contextlib.ExitStack() as stack:
        plugged: Plugged | None = None
        for number, case in itertools.product(numbers, ROWS[setting.row].cases):
            what = {"row": setting.row, "kind": setting.kind, "way": setting.way.name, "vms": setting.vms}
            with journal.run(**what, case=case, round=number) as run:
                plugged = plugged or _start(setting, options, stack)
                _measure(plugged, case, setting, options, run)
                if run["cut"]:
                    plugged = None


def _start(setting: Setting, options: argparse.Namespace, stack: contextlib.ExitStack) -> Plugged:
    way: Contender = stack.enter_context(setting.way())
    way.start(setting.kind, setting.vms, options.size)
    way.meet(A, C)
    if setting.row not in (FLOOD, QUEUES, JUMBO):
        for number in range(B, B + setting.stuck):
            for sender in (SENDER[READS], SENDER[STUCK]):
                way.meet(sender, number)
    ports = way.ports() if isinstance(way, Bulkhead) else {}
    if setting.row == OFFLOAD and isinstance(way, Bulkhead):
        for sender in (SENDER[READS], SENDER[STUCK]):
            ask(way.switch, "set", target=str(ports[sender]), settings={"offload": "tso"})
        ask(way.switch, "set", target=str(ports[B]), settings={"mtu": MSS + 40})
    if setting.row == JUMBO and isinstance(way, Bulkhead):
        ask(way.switch, "set", target=str(ports[C]), settings={"mtu": MSS + 40})
    if setting.row == QUEUES and isinstance(way, Bulkhead):
        ask(way.switch, "attach", transport="vhost", url=f"unix://{way.switch.vhost}")
    generator.flow(setting.kind, options.size, min(WARM_UP, options.seconds), way.pair(A, C))
    return Plugged(way, ports)


def _measure(plugged: Plugged, case: str, setting: Setting, options: argparse.Namespace, run: Run) -> None:
    way, ports = plugged
    if case == STORM_OFF and isinstance(way, Bulkhead):
        ask(way.switch, "set", target=str(ports[SENDER[case]]), settings={"limit-broadcast": "none"})
    with disturbed(way, case, setting, options) as disturbance:
        before = _observe(plugged, setting, case)
        pair = way.pair(A, C)
        run.update(generator.flow(way.kind, options.size, options.seconds, pair))
        if not run["cut"]:  # a stream that stopped within a frame carries nothing any more
            run["echo"] = generator.echo(way.kind, options.size, options.seconds / 2, pair)
        run["disturbance"] = disturbance
        disturbance["b_cpu"] = _b_cpu(before)
        after = _observe(plugged, setting, case)
    if before and after:
        run["drops"] = {port: after["drops"][port] - before["drops"].get(port, 0) for port in after["drops"]}
        run["b_ports"], run["d_port"] = after["b_ports"], after["d_port"]


def _observe(plugged: Plugged, setting: Setting, case: str) -> dict[str, Any]:
    """Return what our switch knows now: frames dropped by port, whose ports those are, B's workers' CPU."""
    way, where = plugged
    if not isinstance(way, Bulkhead):
        return {}
    receivers = [C] if setting.row == JUMBO else range(B, B + setting.stuck)
    b_ports = [where[number] for number in receivers]
    ports = ask(way.switch, "stats")["ports"]
    workers = [port["worker"]["pid"] for port in ports if port["port"] in b_ports]
    return {
        "drops": {str(port["port"]): sum(port["drops"].values()) for port in ports},
        "b_ports": [str(port) for port in b_ports],
        "d_port": str(where[SENDER[case]]) if case in SENDER else "",
        "workers": workers,
        "cpu": proc.cpu_ns(workers),
        "at": time.monotonic(),
    }


def _b_cpu(before: dict[str, Any]) -> float | None:
    """Return what each of B's workers has used since, in percent of a core, on average."""
    if not before:
        return None
    used = proc.cpu_ns(before["workers"]) - before["cpu"]
    return float(used / 1e7 / (time.monotonic() - before["at"]) / len(before["workers"]))


BENCHMARK = Benchmark(
    "isolation",
    "what a pair of VMs loses while another does not read, or floods",
    "A sends to C, closed-loop, then they measure round trips; meanwhile D is silent, or sends to B which"
    " reads, or sends to B which never reads; or D broadcasts as fast as it can, and B never reads; or D"
    " sends B frames of 64 KiB that the switch has to cut; or D sends C frames that are longer than its MTU;"
    " or D is a guest that shares its memory and rewrites its queues while the switch uses them. 'of silent'"
    " compares with the run of the same"
    " round in which D is silent; what 'B is stuck' costs beyond 'B reads' is the price of being stuck. The"
    " first row also of other switches, where they are: each is one process for all its VMs.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

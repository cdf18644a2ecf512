"""``iperf``: TCP of real kernels as gvproxy's pull request 613 measured it: between VMs, with the host."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from scripts.benchmarks.iperf_report import COLUMNS, directions, draw, rows
from scripts.benchmarks.lab import host_and_vm, host_peers, two_vms
from scripts.benchmarks.lab.lab import BEFORE, Lab, Test
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import proc
from scripts.benchmarks.report.journal import Benchmark, Journal, MissingError
from tests.helpers.guests.machine import CommandError

VMS, HOST = "vms", "host"
CONGESTION = "cubic"
"""What both ends use, as Linux does unless told otherwise. A machine may have been told: BBR takes losses
for nothing that it has to yield to, and then a switch of many streams only shows how much it drops."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--between", choices=(VMS, HOST), action="append",
        help="two VMs, or a VM and its host (both)",
    )  # fmt: skip
    parser.add_argument(
        "--way",
        action="append",
        metavar="NAME",
        help="whole name of a contender, more than once for several (all)",
    )
    parser.add_argument(
        "--mtu", type=choose.mtu, action="append", help="more than once for several (1500, 65520)"
    )
    parser.add_argument(
        "--seconds", type=choose.count, default=60, help="of each test of one stream (%(default)s)"
    )
    parser.add_argument(
        "--streams", type=choose.streams, default=8, help="each way, in the long test (%(default)s)"
    )
    parser.add_argument(
        "--streams-seconds", type=choose.count, default=600, help="of the test of these (%(default)s)"
    )
    parser.add_argument(
        "--rounds", type=choose.count, default=1, help="in which the switches take turns (%(default)s)"
    )
    parser.add_argument(
        "--gvproxy",
        type=Path,
        metavar="PATH",
        help="a gvproxy binary to compare with, at the host (the one in PATH, if there is one)",
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all tests in one lab of each kind, for each MTU."""
    options.between = options.between or [VMS, HOST]
    options.mtu = options.mtu or [1500, 65520]
    chosen = [case for case in _cases(options) if not options.way or case[0].name in options.way]
    cases = [*itertools.product(range(options.rounds), chosen)]
    journal.expect(len(cases) * len(options.mtu))
    for mtu in options.mtu:
        with contextlib.ExitStack() as stack:
            labs: dict[type[Lab], Lab] = {}
            missing: dict[type[Lab], MissingError] = {}
            for number, (kind, test) in cases:
                seconds = options.seconds if test.streams == 1 else options.streams_seconds
                what = {"mtu": mtu, "test": test.title, "words": test.words, "client": test.client}
                what |= {"way": kind.name, "partner": kind.partner, "round": number}
                with journal.run(**what) as run, journal.during(seconds, "iperf3"):
                    if kind in missing:
                        raise missing[kind]
                    try:
                        if kind not in labs:
                            labs[kind] = stack.enter_context(kind(mtu))
                        run.update(_measure(labs[kind], test, seconds))
                    except MissingError as error:
                        missing[kind] = error
                        raise
                    except CommandError as error:
                        raise RuntimeError(str(error)) from error


def _cases(options: argparse.Namespace) -> list[tuple[type[Lab], Test]]:
    """Return what one round consists of: the contenders of each test one after another."""
    found = shutil.which("gvproxy")
    host_peers.Gvproxy.binary = options.gvproxy or (Path(found) if found else None)
    named = (host_peers.Gvproxy, host_peers.KrunkitGvproxy) if host_peers.Gvproxy.binary else ()
    hosts: tuple[type[Lab], ...] = (*host_and_vm.OURS, *host_peers.PEERS, *named)
    cases: list[tuple[type[Lab], Test]] = []
    if VMS in options.between:
        cases += ((kind, test) for test in two_vms.plan(options.streams) for kind in two_vms.LABS)
    if HOST in options.between:
        cases += ((kind, test) for test in host_and_vm.plan(options.streams) for kind in hosts)
    return cases


def _measure(lab: Lab, test: Test, seconds: int) -> dict[str, Any]:
    """Run iperf3 once."""
    room, server = lab.client(test.client)
    workers = lab.forwarders()
    wrong, drops, before = lab.wrong_sums(), lab.drops(), proc.cpu_ns(workers)
    words = f"exec iperf3 -c {server} -t {seconds} -J -C {CONGESTION} {test.words}"
    report = json.loads(room.run(words, timeout=seconds + 30))
    used = proc.cpu_ns(workers) - before
    dropped = {reason: frames - drops[reason] for reason, frames in lab.drops().items()}
    return {
        "directions": directions(report, test),
        "wrong_sums": lab.wrong_sums() - wrong,
        "dropped_before": dropped.pop(BEFORE),
        "dropped_by_switch": sum(dropped.values()) if dropped else None,
        "dropped_by_reason": dropped,
        "cpu_percent": used / report["end"]["streams"][0]["receiver"]["seconds"] / 1e7,
        "version": report["start"]["version"],
    }


BENCHMARK = Benchmark(
    "iperf",
    "TCP between two network namespaces, and between one and its host (needs root)",
    "iperf3 between two network namespaces of its own: real kernels' TCP, one stream each way, both at once,"
    " and several both ways with -Z. First two VMs, each a TAP of the switch; the same through vde_switch, in"
    " turn, whose TAPs have no offloads as ours do. Then a VM and its host: through our gateway, and through"
    " pasta, slirp4netns, passt and gvproxy. The VM is a TAP, or comes by a socket as QEMU's do, or as one of"
    " krunkit with offloading on and off, in turn: imitated at the socket, where its frames are libkrun's."
    f" The ends' TCP is {CONGESTION}, and uses the same cores as the switch. Sigma is that of the streams'"
    " rates over the whole test, in Gbit/s. What is dropped, and the CPU, are of both directions together.",
    COLUMNS,
    arguments,
    measure,
    rows,
    draw,
)

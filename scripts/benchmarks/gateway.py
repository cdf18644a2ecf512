"""``gateway``: measure the gateway for one VM, alone and while another VM floods it, scans or forges."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from forwarder.names import GATEWAY_MAC, format_mac
from scripts.benchmarks.lab import pumped
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report.figures import spread
from scripts.benchmarks.report.journal import Benchmark, Journal
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch

GATEWAY, HOST = "192.168.127.1", "192.168.127.254"
VM, OTHER = "192.168.127.2", "192.168.127.3"
CONNECTIONS, LOOKUPS, LEASES, PINGS = WANTED = ("connections", "lookups", "leases", "pings")
ALONE = "alone"
"""The same attack, to a destination whose frames the other VM's worker drops: its cost without a gateway."""
NOWHERE, NOWHERE_MAC = "192.168.127.200", "01:80:c2:00:00:01"
"""The address of PAUSE frames."""

ATTACKS = (
    "questions", "hopeless names", "questions without ARP", "silent TCP", "half questions",
    "leases", "scan", "forged sources",
)  # fmt: skip
COLUMNS = ("the other VM", "what", "a second", "of alone", "median ms", "times alone", "failed", "held")
LEAST_RATE, MOST_TIME = 0.95, 1.5
"""Limits of a pass, relative to the rate alone and to the median time alone."""
PORT = 9090
SETTLE = 0.3
LOAD = Path(__file__).parent / "load" / "neighbours.py"


class Place(NamedTuple):
    """A host and two VMs on one gateway."""

    switch: Switch
    host: Namespace
    vm: Namespace
    other: Namespace


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--rounds", type=choose.count, default=5, help="of each case (%(default)s)")
    parser.add_argument("--seconds", type=choose.seconds, default=0.5, help="of each (%(default)s)")
    parser.add_argument(
        "--rate", type=choose.frame_rate, default=3000, help="packets a second of the other (%(default)s)"
    )
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="more than once for several (all)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Measure all cases in turn on one gateway, so that they differ in nothing else."""
    options.attack = options.attack or list(ATTACKS)
    cases = [*itertools.product(range(options.rounds), options.attack)]
    journal.expect(2 * len(WANTED) * len(cases))
    with place() as here, contextlib.ExitStack() as stack:
        serve = _load(here.host, "serve", "0.0.0.0", PORT)
        stack.callback(serve.wait)
        stack.callback(serve.kill)
        assert serve.stdout is not None
        serve.stdout.readline()  # it is ready
        for number, attack in cases:
            for meanwhile in (ALONE, attack):
                with _attacked(here, attack, options, alone=meanwhile == ALONE):
                    for what in WANTED:
                        with journal.run(attack=attack, meanwhile=meanwhile, what=what, round=number) as run:
                            client = _load(here.vm, "ask", what, GATEWAY, HOST, PORT, options.seconds)
                            said = client.communicate(timeout=options.seconds + 60)[0].split()
                            times = [float(word) for word in said[1:]]
                            run["refused"] = int(said[0])
                            run["rate"] = len(times) / options.seconds
                            run["median_s"] = statistics.median(times) if times else None


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Give a switch in a namespace of its own, with two VMs on it."""
    with short_directory() as directory, contextlib.ExitStack() as stack:
        host, vm, other = (
            stack.enter_context(contextlib.closing(Namespace(name))) for name in ("host", "vm", "other")
        )
        switch = Switch(directory, wrap=lambda command: ["ip", "netns", "exec", host.netns, *command])
        stack.callback(switch.kill)
        resolver = ("--resolver", "192.0.2.53")  # no host has this address
        switch.start("--gateway", *resolver, *switch.arguments(qemu=True))
        for number, (room, address) in enumerate(((vm, VM), (other, OTHER)), 1):
            pumped.as_qemu(room, f"52:54:00:00:99:0{number}", 1500, switch.qemu, stack)
            room.run(f"ip address add {address}/24 dev eth0; ip route add default via {GATEWAY}")
        switch.wait_live(3)
        other.run(f"ip neigh add {NOWHERE} lladdr {NOWHERE_MAC} dev eth0 nud permanent")
        for room in (vm, other):
            room.ping(GATEWAY)
        yield Place(switch, host, vm, other)
        switch.stop()


@contextlib.contextmanager
def _attacked(here: Place, kind: str, options: argparse.Namespace, *, alone: bool) -> Iterator[None]:
    ends = (NOWHERE, NOWHERE_MAC) if alone else (GATEWAY, format_mac(GATEWAY_MAC))
    process = _load(here.other, "attack", kind, OTHER, ends[0], HOST, ends[1], options.rate)
    try:
        time.sleep(SETTLE)
        yield
    finally:
        process.kill()
        process.wait()


def _load(room: Namespace, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", room.netns, sys.executable, str(LOAD), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each attack and each kind of question; ratios are within rounds."""
    for attack, what in itertools.product(dict.fromkeys(run["attack"] for run in journal.runs), WANTED):
        if trouble := journal.trouble(attack=attack, what=what):
            yield (attack, what, trouble)
            continue
        alone, under = (
            [run for run in journal.of(attack=attack, what=what, meanwhile=each) if run.get("median_s")]
            for each in (ALONE, attack)
        )
        pairs = [(one, other) for one in alone for other in under if one["round"] == other["round"]]
        rates = [other["rate"] / one["rate"] for one, other in pairs]
        times = [other["median_s"] / one["median_s"] for one, other in pairs]
        failed = sum(run["refused"] for run in journal.of(attack=attack, what=what, meanwhile=attack))
        held = (
            bool(pairs)
            and not failed
            and statistics.median(rates) >= LEAST_RATE
            and statistics.median(times) <= MOST_TIME
        )
        yield (
            *(attack, what, spread((run["rate"] for run in under), 0), spread(rates)),
            *(spread((run["median_s"] for run in under), 2, 1e3), spread(times)),
            *(str(failed), "yes" if held else "no"),
        )


BENCHMARK = Benchmark(
    "gateway",
    "what a VM gets of its gateway while another VM floods it (needs root)",
    "A VM connects to its host (two bytes there and back), looks a name of the gateway's up, asks for a lease"
    " and pings the gateway, one after the other, each again and again, while another VM asks for names or"
    " leases, holds connections for questions, scans the host's ports or forges sources, at the rate that is"
    " named. 'Alone' is while it does the same with a destination whose frames its own worker drops. It holds"
    f" if the rate is at least {LEAST_RATE:g} of that in the same round and the median time at most"
    f" {MOST_TIME:g} times, in the median of rounds, and nothing failed.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

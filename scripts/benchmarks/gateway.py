"""``gateway``: measure the gateway for one VM, alone and while another VM floods it, scans or forges."""

from __future__ import annotations

import argparse
import itertools
import math
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
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
NOWHERE, NOWHERE_MAC = "192.168.127.200", "01:80:c2:00:00:01"
"""Destination of the attack that is the measure: the address of PAUSE frames, which a worker drops."""
ALONE, ATTACKED = 0, 1
TURNS = (ALONE, ATTACKED, ATTACKED, ALONE)
SLICE_S, SETTLE_S = 0.12, 0.02
"""How long an attacker goes on before the other's turn, and the part of it that is not counted."""

ATTACKS = (
    "questions", "hopeless names", "questions without ARP", "silent TCP", "half questions",
    "leases", "scan", "forged sources", "datagrams", "false acknowledgements",
)  # fmt: skip
COLUMNS = ("the other VM", "what", "a second", "of alone", "median ms", "times alone", "failed", "held")
LEAST_RATE, MOST_TIME = 0.95, 1.5
"""Limits of a pass, relative to the rate alone and to the median time alone."""
PORT = 9090
BURST_S = 0.4
"""The first moment of each load, which is not counted: the gateway answers a burst of it at once."""
SYSCTLS = "net.ipv4.tcp_tw_reuse=1 net.ipv4.ip_local_port_range='1024 65535'"
"""Of the VMs: without them the kernel of one that connects a thousand times a second looks for free ports."""
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
    parser.add_argument(
        "--seconds", type=choose.seconds, default=0.5, help="alone, and as long attacked (%(default)s)"
    )
    parser.add_argument(
        "--rate", type=choose.frame_rate, default=3000, help="packets a second of the other (%(default)s)"
    )
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="more than once for several (all)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Measure all cases in turn on one gateway, so that they differ in nothing else."""
    options.attack = options.attack or list(ATTACKS)
    cases = [*itertools.product(range(options.rounds), options.attack)]
    journal.expect(len(WANTED) * len(cases))
    with place() as here, _load(here.host, "serve", "0.0.0.0", PORT):
        for number, attack in cases:
            with _attackers(here, attack, options) as attackers:
                for what in WANTED:
                    with journal.run(attack=attack, what=what, round=number) as run:
                        run.update(_ask(here, what, attackers, options.seconds))


def _ask(
    here: Place, what: str, attackers: Sequence[subprocess.Popen[str]], seconds: float
) -> dict[str, float]:
    """Let a VM ask while two attackers go on in turn, so both find the machine in the same state."""
    turns = math.ceil(2 * seconds / SLICE_S / len(TURNS)) * len(TURNS)
    spans: list[tuple[int, float, float]] = []
    with ExitStack() as stack:
        with _going_on(attackers[ATTACKED]):
            asked_s = BURST_S + turns * SLICE_S
            asker = stack.enter_context(_load(here.vm, "ask", what, GATEWAY, HOST, PORT, asked_s))
            time.sleep(BURST_S)
        for turn in itertools.islice(itertools.cycle(TURNS), turns):
            with _going_on(attackers[turn]):
                begin = time.monotonic() + SETTLE_S
                time.sleep(SLICE_S)
                spans.append((turn, begin, time.monotonic()))
        words = asker.communicate(timeout=turns * SLICE_S + 60)[0].split()
    asked = [(float(begin), took) for begin, took in zip(words[::2], words[1::2], strict=True)]
    found: dict[str, float] = {}
    for turn, name in ((ALONE, "alone"), (ATTACKED, "attacked")):
        mine = [(begin, end) for each, begin, end in spans if each == turn]
        within = [took for at, took in asked if any(begin <= at < end for begin, end in mine)]
        times = [float(took) for took in within if took != "-"]
        found[f"{name}_rate"] = len(times) / sum(end - begin for begin, end in mine)
        found[f"{name}_failed"] = len(within) - len(times)
        if times:
            found[f"{name}_s"] = statistics.median(times)
    return found


@contextmanager
def place() -> Iterator[Place]:
    """Give a switch in a namespace of its own, with two VMs on it."""
    with short_directory() as directory, ExitStack() as stack:
        host, vm, other = (stack.enter_context(closing(Namespace(name))) for name in ("host", "vm", "other"))
        switch = Switch(directory, wrap=lambda command: ["ip", "netns", "exec", host.netns, *command])
        stack.callback(switch.kill)
        resolver = ("--resolver", "192.0.2.53")  # no host has this address
        switch.start("--gateway", *resolver, *switch.arguments(qemu=True))
        for number, (room, address) in enumerate(((vm, VM), (other, OTHER)), 1):
            pumped.as_qemu(room, f"52:54:00:00:99:0{number}", 1500, switch.qemu, stack)
            room.run(f"ip address add {address}/24 dev eth0; ip route add default via {GATEWAY}")
            room.run(f"sysctl -qw {SYSCTLS}")
        switch.wait_live(3)
        other.run(f"ip neigh add {NOWHERE} lladdr {NOWHERE_MAC} dev eth0 nud permanent")
        for room in (vm, other):
            room.ping(GATEWAY)
        yield Place(switch, host, vm, other)
        switch.stop()


@contextmanager
def _attackers(here: Place, kind: str, options: argparse.Namespace) -> Iterator[list[subprocess.Popen[str]]]:
    """Give the attackers ALONE and ATTACKED, both stopped after their first burst."""
    with ExitStack() as stack:
        attackers = []
        for address, mac in ((NOWHERE, NOWHERE_MAC), (GATEWAY, format_mac(GATEWAY_MAC))):
            words = ("attack", kind, OTHER, address, HOST, mac, options.rate)
            attackers.append(stack.enter_context(_load(here.other, *words)))
            with _going_on(attackers[-1]):
                time.sleep(BURST_S)
        yield attackers


@contextmanager
def _going_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """Let a stopped process go on for a while."""
    process.send_signal(signal.SIGCONT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGSTOP)


@contextmanager
def _load(room: Namespace, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Run a load, which has said that it is ready, and kill it in the end."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", room.netns, sys.executable, str(LOAD), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each attack and each kind of question; ratios are within rounds."""
    for attack, what in itertools.product(dict.fromkeys(run["attack"] for run in journal.runs), WANTED):
        if trouble := journal.trouble(attack=attack, what=what):
            yield (attack, what, trouble)
            continue
        runs = [run for run in journal.of(attack=attack, what=what) if "alone_s" in run]
        failed = sum(run["attacked_failed"] for run in runs)
        rates = [run["attacked_rate"] / run["alone_rate"] for run in runs]
        times = [run["attacked_s"] / run["alone_s"] for run in runs if "attacked_s" in run]
        held = (
            bool(times)
            and not failed
            and statistics.median(rates) >= LEAST_RATE
            and statistics.median(times) <= MOST_TIME
        )
        yield (
            *(attack, what, spread((run["attacked_rate"] for run in runs), 0), spread(rates)),
            *(spread((run.get("attacked_s") for run in runs), 2, 1e3), spread(times)),
            *(str(failed), "yes" if held else "no"),
        )


BENCHMARK = Benchmark(
    "gateway",
    "what a VM gets of its gateway while another VM floods it (needs root)",
    "A VM connects to its host (two bytes there and back), looks a name of the gateway's up, asks for a lease"
    " and pings the gateway, one after the other, each again and again, while another VM asks for names or"
    " leases, holds connections for questions, scans the host's ports or forges sources, at the rate that is"
    " named. 'Alone' is while it does the same with a destination whose frames its own worker drops. The two"
    " go on in turn while the first VM asks. It holds"
    f" if the rate is at least {LEAST_RATE:g} of that in the same round and the median time at most"
    f" {MOST_TIME:g} times, in the median of rounds, and nothing failed.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

"""``gateway``: connections and datagrams through the gateway, alone and while another VM scans or forges."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report.figures import percentile
from scripts.benchmarks.report.journal import Benchmark, Journal
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.switch import Switch

GATEWAY, HOST = "192.168.127.1", "192.168.127.254"
VM, OTHER = "192.168.127.2", "192.168.127.3"
OUT, IN = "VM to host", "host to VM"
ALONE, SCAN, FORGE = "alone", "another scans ports", "another forges sources"
CASES = ((OUT, ALONE), (OUT, SCAN), (OUT, FORGE), (IN, ALONE))
COLUMNS = ("from, to", "meanwhile", "connections/s", "median ms", "p99 ms", "echo ms", "failed")
PORT, FORWARDED = 9090, 9091
LOAD = Path(__file__).parent / "load" / "connections.py"


class Place(NamedTuple):
    """A host and two VMs on one gateway."""

    switch: Switch
    host: Namespace
    vm: Namespace
    other: Namespace


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--rounds", type=choose.count, default=5, help="of each case (%(default)s)")
    parser.add_argument("--seconds", type=choose.seconds, default=4.0, help="of each (%(default)s)")
    parser.add_argument(
        "--attack", type=choose.frame_rate, default=3000, help="packets a second of the other (%(default)s)"
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Take turns among all cases on one gateway, so that they differ in nothing but what is compared."""
    journal.expect(options.rounds * len(CASES))
    with place() as here, contextlib.ExitStack() as stack:
        for room in (here.host, here.vm):
            serve = _load(room, "serve", "0.0.0.0", PORT)
            stack.callback(serve.wait)
            stack.callback(serve.kill)
            assert serve.stdout is not None
            serve.stdout.readline()  # it is ready
        for number in range(options.rounds):
            for way, meanwhile in CASES:
                with journal.run(way=way, meanwhile=meanwhile, round=number) as run:
                    attack = _attack(here, meanwhile, options)
                    try:
                        room, to, port = (
                            (here.vm, HOST, PORT) if way == OUT else (here.host, "127.0.0.1", FORWARDED)
                        )
                        client = _load(room, "connect", to, port, options.seconds)
                        said = client.communicate(timeout=options.seconds + 60)[0].split()
                    finally:
                        if attack is not None:
                            attack.kill()
                            attack.wait()
                    run["refused"], run["echo"] = int(said[0]), float(said[1])
                    run["seconds"] = [float(word) for word in said[2:]]


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Give a switch in a namespace of its own, with two VMs on it."""
    with short_directory() as directory, contextlib.ExitStack() as stack:
        host, vm, other = (
            stack.enter_context(contextlib.closing(Namespace(name))) for name in ("host", "vm", "other")
        )
        switch = Switch(directory, wrap=lambda command: ["ip", "netns", "exec", host.netns, *command])
        stack.callback(switch.kill)
        forward = f"tcp:127.0.0.1:{FORWARDED}:{VM}:{PORT}"
        switch.start("--gateway", "--forward", forward, *switch.arguments(qemu=True))
        for number, (room, address) in enumerate(((vm, VM), (other, OTHER)), 1):
            tap = room.open_tap(f"52:54:00:00:99:0{number}")
            stack.callback(Pump(tap, f"unix://{switch.qemu}").close)
            room.run(f"ip address add {address}/24 dev eth0; ip route add default via {GATEWAY}")
        switch.wait_live(3)
        for room in (vm, other):
            room.ping(GATEWAY)
        yield Place(switch, host, vm, other)
        switch.stop()


def _attack(here: Place, meanwhile: str, options: argparse.Namespace) -> subprocess.Popen[str] | None:
    if meanwhile == ALONE:
        return None
    kind = "scan" if meanwhile == SCAN else "forge"
    to = here.other.run(f"ip neigh show {GATEWAY}").split("lladdr ")[1][:17]
    return _load(here.other, kind, OTHER, HOST, to, options.attack)


def _load(room: Namespace, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", room.netns, sys.executable, str(LOAD), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each case; times are of all its connections together."""
    for way, meanwhile in CASES:
        trouble = journal.trouble(way=way, meanwhile=meanwhile)
        runs = [run for run in journal.of(way=way, meanwhile=meanwhile) if run.get("seconds")]
        if trouble or not runs:
            yield (way, meanwhile, trouble or "no connection")
            continue
        times = [seconds * 1e3 for run in runs for seconds in run["seconds"]]
        rate = statistics.median(len(run["seconds"]) for run in runs) / journal.options.seconds
        yield (
            *(way, meanwhile, f"{rate:,.0f}", f"{statistics.median(times):,.2f}"),
            *(
                f"{percentile(times, 0.99):,.2f}",
                f"{statistics.median(run['echo'] for run in runs) * 1e3:,.2f}",
            ),
            f"{sum(run['refused'] for run in runs):,}",
        )


BENCHMARK = Benchmark(
    "gateway",
    "connections through the gateway",
    "A client connects, sends two bytes, has two bytes back and closes, again and again; the median of its"
    " connections a second, and the time of one. An echo is one datagram there and back, after every tenth"
    " connection (VM to host). The other VM scans ports of the host, or sends from addresses that are not of"
    " the LAN, at the rate that is named.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

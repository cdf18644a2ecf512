"""``host``: measure echoes, connections and datagrams between a VM and its host, here and through others."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.lab import generator, host_peers
from scripts.benchmarks.lab.host_and_vm import (
    LOAD_FORWARDED,
    LOAD_PORT,
    TO_HOST,
    TO_VM,
    Gateway,
    HostAndVM,
    SocketGateway,
)
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import proc
from scripts.benchmarks.report.figures import NOTHING, spread
from scripts.benchmarks.report.journal import Benchmark, Journal, MissingError, Run
from tests.helpers.guests.netns import Namespace

CONTENDERS: tuple[type[HostAndVM], ...] = (
    Gateway,
    SocketGateway,
    host_peers.Passt,
    host_peers.Pasta,
    host_peers.Slirp,
)
ECHO, BESIDE, CONNECT, SEND = "echo", "echo beside a stream", "connections", "datagrams"
TESTS = (ECHO, BESIDE, CONNECT, SEND)
FLAT_OUT = 0
RATES = (50_000, 100_000, FLAT_OUT)
BYTES = 1472
NO_BOUND = 10_000_000
BEGIN_S = 0.5
"""Time for a stream to reach its rate."""
DRAIN_S = 0.2
COLUMNS = ("test", "direction", "way", "p50 us", "p99 us", "a second", "lost %", "CPU us each", "Gbit/s")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--test", choices=TESTS, action="append", help="more than once for several (all)")
    parser.add_argument("--way", action="append", help="part of a contender's name; more than once (all)")
    parser.add_argument("--rounds", type=choose.count, default=5, help="alternating (%(default)s)")
    parser.add_argument("--seconds", type=choose.seconds, default=1.0, help="of each test (%(default)s)")
    parser.add_argument("--threads", type=choose.count, default=8, help="that connect (%(default)s)")
    parser.add_argument("--passt", type=Path, metavar="PATH", help="another passt binary than that of PATH")
    parser.add_argument("--gvproxy", type=Path, metavar="PATH", help="a gvproxy binary to compare with")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Measure the contenders in turn; each has one lab."""
    options.test = options.test or list(TESTS)
    if options.passt:
        host_peers.Passt.program = str(options.passt)
    host_peers.Gvproxy.binary = options.gvproxy
    named = (host_peers.Gvproxy,) if options.gvproxy else ()
    ways = [
        way
        for way in (*CONTENDERS, *named)
        if not options.way or any(word in way.name for word in options.way)
    ]
    cases = [case for test in options.test for case in _cases(test)]
    journal.expect(options.rounds * len(ways) * len(cases))
    with contextlib.ExitStack() as stack:
        labs: dict[type[HostAndVM], Ends | MissingError] = {}
        for number in range(options.rounds):
            turn = ways if number % 2 == 0 else ways[::-1]
            for case, way in itertools.product(cases, turn):
                with journal.run(**case, way=way.name, round=number) as run:
                    if way not in labs:
                        try:
                            labs[way] = Ends(stack.enter_context(way(1500)), stack)
                        except MissingError as error:
                            labs[way] = error
                    ends = labs[way]
                    if isinstance(ends, MissingError):
                        raise ends
                    run.update(_measure(ends, case, options))


def _cases(test: str) -> list[dict[str, Any]]:
    rates = RATES if test == SEND else (None,)
    return [{"test": test, "rate": rate, "to": to} for rate in rates for to in (TO_HOST, TO_VM)]


class Ends:
    """A lab with the load's servers at both ends."""

    def __init__(self, lab: HostAndVM, stack: contextlib.ExitStack) -> None:
        self.lab = lab
        self._stack = stack
        self._sinks: dict[str, subprocess.Popen[str]] = {}
        for room in (lab.host, lab.vm):
            room.run("sysctl -qw net.ipv4.tcp_tw_reuse=1 net.ipv4.ip_local_port_range='10000 65000'")
        for to in (TO_HOST, TO_VM):
            self._serve(to)

    def room(self, to: str, *, client: bool) -> Namespace:
        """Return the place of the client of a direction, or of its server."""
        return self.lab.vm if (to == TO_HOST) == client else self.lab.host

    def target(self, to: str, offset: int = 0) -> tuple[str, int]:
        """Return the address of the load's server for the client of a direction."""
        if to == TO_HOST:
            return self.lab.alias, LOAD_PORT + offset
        return self.lab.entrance, LOAD_FORWARDED + offset

    def load(self, to: str, mode: str, *words: object) -> dict[str, Any]:
        """Run a client to its end."""
        process = load(self.room(to, client=True), mode, *self.target(to), *words)
        return generator.finish(process, 60.0)

    def received(self, to: str) -> int:
        """Return the number of datagrams that have arrived since the last call."""
        count: int = generator.stop(self._sinks.pop(to))["datagrams"]
        self._serve(to)
        return count

    def _serve(self, to: str) -> None:
        process = load(self.room(to, client=False), "inet-serve", LOAD_PORT)
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
        self._sinks[to] = process


def load(room: Namespace, mode: str, *words: object) -> subprocess.Popen[str]:
    """Start the load generator in a namespace."""
    return subprocess.Popen(
        ["ip", "netns", "exec", room.netns, str(generator.build()), mode, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _measure(ends: Ends, case: dict[str, Any], options: argparse.Namespace) -> Run:
    test, to, seconds = case["test"], case["to"], options.seconds
    pids = ends.lab.forwarders()
    before = proc.cpu_ns(pids)
    if test == SEND:
        done = ends.load(to, "inet-send", BYTES, case["rate"], seconds)
        time.sleep(DRAIN_S)
        cpu = proc.cpu_ns(pids) - before
        count = ends.received(to)
        return {"sent": done["sent"], "count": count, "cpu_ns": cpu, "rate_s": count / done["seconds"]}
    if test == CONNECT:
        done = ends.load(to, "inet-connect", seconds, NO_BOUND, options.threads)
        done["refused"] = done.pop("failed")
        return {**done, "cpu_ns": proc.cpu_ns(pids) - before, "count": done["done"],
                "rate_s": done["done"] / done["seconds"]}  # fmt: skip
    if test == ECHO:
        done = ends.load(to, "inet-echo", seconds)
        return {**done, "cpu_ns": proc.cpu_ns(pids) - before, "count": done["done"]}
    return _beside(ends, to, seconds)


def _beside(ends: Ends, to: str, seconds: float) -> Run:
    """Measure echoes beside a stream of the same direction."""
    room, server = ends.lab.client("VM" if to == TO_HOST else "host")
    lasts = math.ceil(seconds + 2 * BEGIN_S)  # iperf3 takes whole seconds
    words = ["iperf3", "-c", *server.split(), "-t", str(lasts), "-J", "-C", "cubic"]
    words = ["ip", "netns", "exec", room.netns, *words]
    stream = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        time.sleep(BEGIN_S)
        done = ends.load(to, "inet-echo", seconds)
        report = json.loads(stream.communicate(timeout=30)[0])
    finally:
        stream.kill()
        stream.communicate()
    return {**done, "bits_s": report["end"]["sum_received"]["bits_per_second"]}


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each case and way."""
    seen = dict.fromkeys((run["test"], run["rate"], run["to"], run["way"]) for run in journal.runs)
    for test, rate, to, way in seen:
        what = {"test": test, "rate": rate, "to": to, "way": way}
        title = test if rate is None else f"{test}, {f'{rate:,} a second' if rate else 'flat out'}"
        if trouble := journal.trouble(**what):
            yield (title, to, way, trouble)
            continue
        runs = [run for run in journal.of(**what) if "done" in run or "sent" in run]
        lost = [100 * (1 - run["count"] / run["sent"]) if run.get("sent") else None for run in runs]
        each = [run["cpu_ns"] / run["count"] if run.get("count") else None for run in runs]
        yield (
            *(title, to, way),
            *(spread((run.get(key) for run in runs), 0, 1e-3) for key in ("p50_ns", "p99_ns")),
            spread((run.get("rate_s") for run in runs), 0),
            spread(lost, 1) if test == SEND else NOTHING,
            spread(each, 1, 1e-3),
            spread((run.get("bits_s") for run in runs), 2, 1e-9),
        )


BENCHMARK = Benchmark(
    "host",
    "echoes, connections and datagrams between a VM and its host (needs root)",
    "A VM, a namespace behind a TAP or with its frames on a socket, and its host, through our gateway and"
    " through passt, pasta and slirp4netns, in turn. An echo is one byte there and back on one connection,"
    " alone or beside one TCP stream of the same direction. A connection is made, sends two bytes, has two"
    f" back and is closed. A datagram has {BYTES} bytes; what has not arrived is lost. CPU is that of the"
    " processes that forward, for each echo, connection and datagram that arrived.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

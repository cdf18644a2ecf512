"""``iperf``: TCP of real kernels through the switch, between two network namespaces."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks import options as choose
from scripts.benchmarks import proc
from scripts.benchmarks.contenders import end_of
from scripts.benchmarks.figures import median, spread
from scripts.benchmarks.journal import Benchmark, Journal, MissingError
from tests.guests.machine import CommandError
from tests.guests.netns import Namespace
from tests.guests.switch import Switch

NEEDED = {"ip": "iproute2", "iperf3": "iperf3", "busybox": "busybox-static"}
LEFT, RIGHT = "10.99.0.1", "10.99.0.2"
BEFORE = "before"
THERE, BACK = "left to right", "right to left"
COLUMNS = (
    "MTU", "streams", "direction", "Gbit/s", "retransmits", "slowest stream", "fastest stream",
    "sigma/mean %",
    "dropped by the switch", "dropped before it", "switch's CPU, % of a core",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--mtu", type=choose.mtu, action="append", help="more than once for several (1500, 65520)"
    )
    parser.add_argument(
        "--streams", type=choose.streams, action="append", help="more than once for several (1, 8)"
    )
    parser.add_argument(
        "--rounds", type=choose.count, default=3, help="alternating runs of each case (%(default)s)"
    )
    parser.add_argument("--seconds", type=choose.count, default=5, help="of each run (%(default)s)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all cases on one switch with two TAPs."""
    options.mtu, options.streams = options.mtu or [1500, 65520], options.streams or [1, 8]
    with contextlib.ExitStack() as stack:
        lab: Lab | None = None
        for number, mtu, streams, direction in itertools.product(
            range(options.rounds), options.mtu, options.streams, (THERE, BACK)
        ):
            with journal.run(mtu=mtu, streams=streams, direction=direction, round=number) as run:
                lab = lab or Lab(stack)
                try:
                    run.update(lab.run(mtu, streams, direction == BACK, options.seconds))
                except CommandError as error:
                    raise RuntimeError(str(error)) from error


class Lab:
    """Two network namespaces and the switch between them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        missing = [f"{program} (apt-get install {package})" for program, package in NEEDED.items()
                   if not shutil.which(program)]  # fmt: skip
        if missing:
            raise MissingError(f"there is no {', no '.join(missing)}")
        if os.geteuid() or not os.access("/dev/net/tun", os.W_OK):
            raise MissingError("network namespaces and TAPs need root and /dev/net/tun")
        directory = Path(tempfile.mkdtemp(prefix="bh-"))
        stack.callback(shutil.rmtree, directory)
        self.left, self.right = (
            stack.enter_context(contextlib.closing(Namespace(name))) for name in ("left", "right")
        )
        self.switch = Switch(directory)
        stack.push(end_of(self.switch))
        interface = self.left.interface
        taps = [f"{interface},netns={side.netns}" for side in (self.left, self.right)]
        self.switch.start(*self.switch.arguments(taps=taps))
        self.switch.wait_live(2)
        self.left.address(f"{LEFT}/24")
        self.right.address(f"{RIGHT}/24")
        self.left.ping(RIGHT)
        self.right.serve_iperf()

    def run(self, mtu: int, streams: int, back: bool, seconds: int) -> dict[str, Any]:
        """Run iperf3 once; the server on the right sends if ``back``."""
        for side in (self.left, self.right):
            side.run(f"ip link set {side.interface} mtu {mtu}")
        workers = [port["worker"]["pid"] for port in self.switch.ports()]
        drops, before = self._drops(), proc.cpu_ns(workers)
        words = f"iperf3 -c {RIGHT} -t {seconds} -P {streams} -J{' -R' if back else ''}"
        report = json.loads(self.left.run(words, timeout=seconds + 30))
        used = proc.cpu_ns(workers) - before
        dropped = {reason: frames - drops[reason] for reason, frames in self._drops().items()}
        end = report["end"]
        took = end["sum_received"]["seconds"]
        return {
            "bits_per_second": end["sum_received"]["bits_per_second"],
            "retransmits": end["sum_sent"].get("retransmits"),
            "per_stream": [stream["receiver"]["bits_per_second"] for stream in end["streams"]],
            "dropped_before": dropped.pop(BEFORE),
            "dropped_by_switch": sum(dropped.values()),
            "dropped_by_reason": dropped,
            "cpu_percent": used / took / 1e7,
            "version": report["start"]["version"],
        }

    def _drops(self) -> dict[str, int]:
        """Return the frames dropped so far: by the switch by reason, and by the TAPs' queues before it."""
        drops = Counter[str]()
        for port in self.switch.ports():
            drops.update(port["drops"])
        for side in (self.left, self.right):
            drops[BEFORE] += int(side.run(f"cat /sys/class/net/{side.interface}/statistics/tx_dropped"))
        return drops


def _unevenness(run: dict[str, Any]) -> float | None:
    streams = run.get("per_stream", [])
    mean = statistics.mean(streams) if streams else 0.0
    return 100 * statistics.pstdev(streams) / mean if len(streams) > 1 and mean else None


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each case."""
    cases = dict.fromkeys((run["mtu"], run["streams"], run["direction"]) for run in journal.runs)
    for mtu, streams, direction in sorted(cases, key=lambda case: case[:2]):
        case = {"mtu": mtu, "streams": streams, "direction": direction}
        start = (f"{mtu:,}", f"{streams}", direction)
        trouble = journal.trouble(**case)
        if trouble:
            yield (*start, trouble)
            continue
        runs = journal.of(**case)
        each = [run["per_stream"] for run in runs if run.get("per_stream") and streams > 1]
        yield (
            *start,
            spread([run.get("bits_per_second") for run in runs], 2, 1e-9),
            median([run.get("retransmits") for run in runs], 0),
            median(map(min, each), 3, 1e-9),
            median(map(max, each), 3, 1e-9),
            spread(map(_unevenness, runs), 1),
            median([run.get("dropped_by_switch") for run in runs], 0),
            median([run.get("dropped_before") for run in runs], 0),
            median([run.get("cpu_percent") for run in runs], 0),
        )


BENCHMARK = Benchmark(
    "iperf",
    "TCP between two network namespaces through TAPs of the switch (needs root)",
    "Two network namespaces of its own, each with a TAP that `supervisor run --tap` made, and iperf3"
    " between them: real kernels' TCP, without offloads across the switch. The ends' TCP uses the same"
    " cores as the switch. Retransmits, streams and sigma/mean are medians of the rounds.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

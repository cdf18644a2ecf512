"""``fairness``: the share of each of several VMs that send more to one VM than it reads."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import time
from collections.abc import Iterable, Sequence

from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.sockets import KINDS, Bulkhead
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report.figures import median, spread
from scripts.benchmarks.report.journal import Benchmark, Journal, Run
from tests.helpers.guests.fake_vm import mac
from tests.helpers.guests.watching import ask

RECEIVER, FIRST_SENDER = 1, 2
ALIKE, MIXED = "all as long", "every other one a quarter as long"
CASES = (ALIKE, MIXED)
BOUND_PERCENT = 3.0
SETTLE = 0.3
COLUMNS = (
    "frames", "frames' length", "senders", "Gbit/s in all", "slowest sender", "fastest sender",
    "sigma/mean %", "sent, of received", "drops elsewhere", "must hold", "held",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append", help="of socket, more than once for several (all)"
    )
    parser.add_argument("--size", type=choose.frame_size, default=1514, help="bytes of a frame (%(default)s)")
    parser.add_argument("--senders", type=choose.senders, default=8, help="(%(default)s)")
    parser.add_argument("--rounds", type=choose.count, default=5, help="of each case (%(default)s)")
    parser.add_argument("--seconds", type=choose.seconds, default=2.0, help="of each run (%(default)s)")
    parser.add_argument(
        "--rate",
        type=choose.frame_rate,
        default=16_000,
        help="frames a second that each sends, shorter ones more of them (%(default)s); 0: as many as its"
        " socket takes, and then it is the machine's cores that they share",
    )
    parser.add_argument(
        "--takes",
        type=choose.frame_rate,
        default=32_000,
        help="frames a second, of the full length, that the receiver reads (%(default)s); 0: all it can",
    )


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all cases on a switch of their own each."""
    options.kind = options.kind or list(KINDS)
    journal.expect(options.rounds * len(options.kind) * len(CASES))
    for number, kind, case in itertools.product(range(options.rounds), options.kind, CASES):
        with journal.run(kind=kind, case=case, round=number) as run, Bulkhead() as way:
            way.start(kind, 1 + options.senders, options.size)
            senders = range(FIRST_SENDER, FIRST_SENDER + options.senders)
            for sender in senders:
                way.meet(RECEIVER, sender)
            _measure(way, case, senders, options, run)


def _measure(way: Bulkhead, case: str, senders: range, options: argparse.Namespace, run: Run) -> None:
    receiver = way.vms[RECEIVER - 1]
    to = mac(RECEIVER).hex(":")
    with contextlib.ExitStack() as stack:
        floods = []
        for sender in senders:
            vm = way.vms[sender - 1]
            shorter = 4 if case == MIXED and sender % 2 else 1
            size = max(choose.SMALLEST_FRAME, options.size // shorter)
            words = (way.kind, size, options.rate * shorter, vm.sock.fileno(), mac(sender).hex(":"), to, 1, 0)
            floods.append(stack.enter_context(generator.running("flood", words, [vm])))
        time.sleep(SETTLE)  # then all of them have filled their rings, in any order of their starts
        what = (mac(FIRST_SENDER).hex(":"), len(senders), options.takes * options.size)
        sink = stack.enter_context(
            generator.running("sink", (way.kind, receiver.sock.fileno(), *what), [receiver])
        )
        time.sleep(options.seconds)
        got = generator.stop(sink)
        run["sent"] = [generator.stop(flood)["sent"] for flood in floods]
    run.update(got)
    port = way.ports()[RECEIVER]
    run["drops_elsewhere"] = sum(
        sum(each["drops"].values()) for each in ask(way.switch, "stats")["ports"] if each["port"] != port
    )


def _rates(run: Run) -> list[float]:
    """Return what came of each sender, in bytes a second."""
    return [count / run["seconds"] for count in run.get("bytes_from", [])]


def unevenness(run: Run) -> float | None:
    """Return the standard deviation of the senders' rates in percent of their mean."""
    rates = _rates(run)
    mean = statistics.mean(rates) if rates else 0.0
    return 100 * statistics.pstdev(rates) / mean if mean else None


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each case."""
    for kind, case in dict.fromkeys((run["kind"], run["case"]) for run in journal.runs):
        start = (f"{kind}, {journal.options.size:,} B", case, f"{journal.options.senders}")
        trouble = journal.trouble(kind=kind, case=case)
        if trouble:
            yield (*start, trouble)
            continue
        runs = [run for run in journal.of(kind=kind, case=case) if "bytes_from" in run]
        uneven = [value for value in map(unevenness, runs) if value is not None]
        held = bool(uneven) and statistics.median(uneven) <= BOUND_PERCENT
        yield (
            *start,
            spread([sum(_rates(run)) for run in runs], 2, 8e-9),
            median([min(_rates(run)) for run in runs], 3, 8e-9),
            median([max(_rates(run)) for run in runs], 3, 8e-9),
            spread(uneven, 1),
            median([sum(run["sent"]) / run["frames"] if run["frames"] else None for run in runs]),
            f"{sum(run['drops_elsewhere'] for run in runs):,}",
            f"sigma/mean ≤ {BOUND_PERCENT:g} %",
            "held" if held else "not held",
        )


BENCHMARK = Benchmark(
    "fairness",
    "what each of several VMs gets of one that all of them send to",
    "Several VMs send to one more than it takes, and it counts the bytes that come of each; then the same"
    " while every other one sends frames a quarter as long, since a share is fair in bytes. sigma/mean is the"
    " standard deviation of the senders' rates in percent of their mean. 'sent, of received' says how many"
    " frames were sent for each that came: near 1 the receiver was not busy, and nothing had to be shared.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

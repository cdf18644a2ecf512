"""``soak``: a switch whose VMs, workers and settings do anything at random, for as long as one likes.

Theory of operation. A cycle lets the world (``soaking.world``) live for a while and then be quiet; then it is
looked at. After the first cycle everything has been used once, so what is there then is what later cycles are
compared with.

The books of a pair are balanced to the frame where nothing can get lost uncounted: of the quiet pairs, whose
workers are never killed. For each of their VMs

- what it sent is what its port has read (``rx``),
- what it received, from whomever, is what its port has written (``tx``),
- what it sent to its partner is what its partner received of it, plus what the switch says it dropped: at its
  own port on the way in, or at its partner's for want of room, *from this source*.

A killed worker of the restless pair loses its private state, which cannot be counted; frames that it had
written but not yet taken out of a ring count as lost, although they arrived. So its difference is only shown.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from scripts.benchmarks.lab.sockets import end_of
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import proc
from scripts.benchmarks.report.figures import NOTHING
from scripts.benchmarks.report.journal import Benchmark, Journal, Run
from scripts.benchmarks.soaking.vms import Pair
from scripts.benchmarks.soaking.world import SLOTS, World
from supervisor.ports.reserve import TOGETHER
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask

COLUMNS = ("what", "figure", "must hold", "held")
CYCLE = 30.0
LEAST_CYCLES = 3
"""The first one is what the others are compared with."""
PATIENCE = 15.0
"""Seconds for what has ended to go: processes are reaped, spare workers are made."""
MIB = 1 << 20
SUPERVISOR, WORKER = "supervisor", "worker"
RESERVED = 2 * (TOGETHER - 1)
"""Descriptors of the supervisor that come and go: of the ports that are reserved for VMs to come."""
MAY_GROW = {SUPERVISOR: 8 * MIB, WORKER: 2 * MIB}
"""Private memory on top of the first cycle's, however long it takes: Python's allocator fragments."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--seconds", type=choose.seconds, default=1800.0, help="in all (%(default)s)")
    parser.add_argument("--seed", type=int, help="of what happens (a random one)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Run all cycles on one switch."""
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    cycles = max(LEAST_CYCLES, round(options.seconds / CYCLE))
    journal.expect(cycles + 1)
    with contextlib.ExitStack() as stack:
        world: World | None = None
        for number in range(cycles):
            with journal.run(cycle=number, seed=options.seed) as run:
                world = world or stack.enter_context(_world(random.Random(options.seed)))
                run["seconds"] = _cycle(world, options.seconds / cycles)
                run["state"] = _state(world, [each["state"] for each in journal.of() if "state" in each][:1])
                run["pairs"] = [_books(world, pair) for pair in world.pairs]
                run["happened"] = dict(world.happened)
                run["wrong"] = world.wrong + [text for pair in world.pairs for text in pair.wrong]
                run["ended"] = [text for pair in world.pairs for text in pair.closed]
            if "failed" in journal.runs[-1]:
                break
    with journal.run(verdict="all must hold"):
        broken = [what for what, _, _, held in rows(journal) if held not in ("held", NOTHING)]
        if broken:
            raise RuntimeError(f"not held: {'; '.join(broken)}")


@contextlib.contextmanager
def _world(rng: random.Random) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        switch = Switch(directory)
        stack.push(end_of(switch))
        switch.start(*switch.arguments(qemu=True, tcp=True, bess=True, vfkit=SLOTS[-1]))
        world = World(switch, rng)
        world.begin()
        yield world


def _cycle(world: World, seconds: float) -> float:
    begun = time.monotonic()
    world.live(seconds)
    world.quiesce()
    return time.monotonic() - begun


def _books(world: World, pair: Pair) -> dict[str, Any]:
    """Compare what a pair's VMs know with what the switch has counted, since they came."""
    ports = {port["name"]: port for port in ask(world.switch, "stats", sources=True)["ports"]}
    books: dict[str, Any] = {"pair": pair.name, "ends": []}
    for end in pair.watched:
        port, other = ports[world.port(end.own)], ports[world.port(end.partner.own)]
        full = sum(row["egress_full"] for row in other["by_source"] if row["port"] == port["port"])
        refused = sum(
            port["drops"][reason]
            for reason in ("runt", "oversize", "spoofed", "storm", "isolated", "offload", "mac_limit")
        )
        books["ends"].append(
            {
                "sent": end.sent,
                "received": end.received,
                "frames": end.frames,
                "rx": port["rx"]["frames"],
                "tx": port["tx"]["frames"],
                "counted": full + refused,
                "arrived": end.partner.received + end.missed,
                "restarts": port["worker"]["restarts"],
            }
        )
    return books


def _state(world: World, first: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the resources of the switch, once they are back at their first level, or at the end."""
    state: dict[str, Any] = {}

    def as_before() -> bool:
        nonlocal state
        state = _look(world)
        spare = state["processes"] > 1 + world.kept
        return spare and all(not _surplus(state, before) for before in first)

    with contextlib.suppress(TimeoutError):
        wait_for(as_before, "everything to go", PATIENCE)
    return state


def _look(world: World) -> dict[str, Any]:
    assert world.switch.process is not None
    pids = {port["name"]: port["worker"]["pid"] for port in ask(world.switch)["ports"]}
    pids[SUPERVISOR] = world.switch.process.pid
    remains = world.switch.remains()
    state: dict[str, Any] = {
        "processes": sum(each.startswith("process ") for each in remains),
        "files": _kinds(each for each in set(remains) if not each.startswith("process ")),
        "descriptors": {},
        "memory": {},
    }
    for name, pid in pids.items():
        with contextlib.suppress(OSError):
            state["descriptors"][name] = proc.descriptors(pid)
            state["memory"][name] = proc.private(pid)
    return state


def _kinds(files: Iterable[str]) -> Counter[str]:
    """Count files by name, a worker's without the process id, which is another one after a restart."""
    return Counter(re.sub(r"/\d+\.", "/PID.", each) for each in files)


def _surplus(state: dict[str, Any], first: dict[str, Any]) -> dict[str, int]:
    """Return how much more there is of everything than at first, and than comes and goes, where there is."""
    more = {
        "processes": state["processes"] - first["processes"],
        "files": sum((Counter(state["files"]) - Counter(first["files"])).values()),
        "descriptors": sum(
            max(0, count - first["descriptors"].get(name, 0) - (RESERVED if name == SUPERVISOR else 0))
            for name, count in state["descriptors"].items()
        ),
    }
    return {what: count for what, count in more.items() if count > 0}


def _growth(runs: list[Run], who: str) -> int:
    """Return by how much the memory of the supervisor, or of the worker that grew most, has grown at most."""
    first = runs[0]["state"]["memory"]
    return max(
        [
            run["state"]["memory"][name] - first[name]
            for run in runs
            for name in run["state"]["memory"].keys() & first.keys()
            if (name == SUPERVISOR) == (who == SUPERVISOR)
        ],
        default=0,
    )


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of everything that must hold, and of what happened."""
    runs = [run for run in journal.of() if "ended" in run]
    for run in journal.of():
        if "failed" in run and "cycle" in run:
            yield ("a cycle came to its end", f"failed: {run['failed']}", "all of them", "not held")
    if not runs:
        return
    last = runs[-1]
    yield ("seed", f"{journal.options.seed}", NOTHING, NOTHING)
    yield ("seconds, cycles", f"{sum(run['seconds'] for run in runs):,.0f}, {len(runs)}", NOTHING, NOTHING)
    happened: Counter[str] = Counter(last["happened"])
    yield (
        "what happened",
        ", ".join(f"{what} {count:,}" for what, count in happened.most_common()),
        NOTHING,
        NOTHING,
    )
    for books in last["pairs"]:
        yield from _pair_rows(books)
    yield _promise("wrong frames", len(last["wrong"]), 0)
    yield _promise("pairs' links that ended", len(last["ended"]), 0)
    surplus = [_surplus(run["state"], runs[0]["state"]) for run in runs]
    for what in ("processes", "files", "descriptors"):
        yield _promise(f"{what} more than after the first cycle", surplus[-1].get(what, 0), 0)
    for who, bound in MAY_GROW.items():
        grown = _growth(runs, who)
        text = f"{grown / MIB:.2f} MiB"
        yield (
            f"memory of a {who}, growth",
            text,
            f"≤ {bound // MIB} MiB",
            "held" if grown <= bound else "not held",
        )


def _pair_rows(books: dict[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    name, ends = books["pair"], books["ends"]

    def total(key: str) -> int:
        return sum(end[key] for end in ends)

    lost = total("sent") - total("arrived")
    yield (f"{name}: sent, arrived", f"{total('sent'):,}, {total('arrived'):,}", NOTHING, NOTHING)
    if name.startswith("quiet"):
        unread = sum(abs(end["sent"] - end["rx"]) for end in ends)
        yield _promise(f"{name}: sent and not read, to the frame", unread, 0)
        yield _promise(
            f"{name}: written and not received", sum(abs(end["tx"] - end["frames"]) for end in ends), 0
        )
        unexplained = sum(abs(end["sent"] - end["arrived"] - end["counted"]) for end in ends)
        yield _promise(f"{name}: lost {lost:,}, of those not counted", unexplained, 0)
    else:
        figure = f"{lost:,}, {total('counted'):,}, {total('restarts'):,}"
        yield (f"{name}: lost, counted, workers killed", figure, NOTHING, NOTHING)


def _promise(what: str, count: int, bound: int) -> tuple[str, str, str, str]:
    return (what, f"{count:,}", f"{bound}", "held" if count <= bound else "not held")


BENCHMARK = Benchmark(
    "soak",
    "VMs, workers and settings do anything at random while three pairs check every frame",
    "VMs of all kinds of sockets come, go, stall, flood, use others' addresses and send garbage, workers are"
    " killed and stopped, settings change, all at random, while three pairs check payload and order of every"
    " frame they get. Now and then, and at the end, all but the pairs goes, and then every frame of the quiet"
    " pairs must be accounted for and nothing may be left of the others. Exit status 1 if anything fails.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

"""``continuity``: workers and supervisors killed at random moments, under traffic that is checked."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from forwarder.errors import LocalError
from scripts.benchmarks.lab.sockets import KINDS, end_of
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report.figures import NOTHING
from scripts.benchmarks.report.journal import Benchmark, Journal, MissingError, Run
from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import FakeVM, mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import (
    ask,
    goes_on,
    kill_supervisor,
    kill_worker,
    name_of,
    port_of,
    workers,
)

WORKER, SUPERVISOR = "worker", "supervisor"
LINKS = {**KINDS, "vhost": "vhost"}
"""Each link, and what a fake VM calls it."""
TRANSPORTS = (*LINKS, "tap")
COLUMNS = (
    "killed", "link", "times", "links that went on", "frames/s", "frames lost, each time", "wrong frames",
    "gap median ms", "worst ms", "next one ready ms", "newcomer heard ms",
)  # fmt: skip
MOMENT = 0.05
"""A process is killed at a random moment within so many seconds of traffic."""
LOOK_EVERY = 0.02
KEPT = mac(1), mac(2), mac(3), mac(4)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--workers", type=choose.count, default=100, help="to kill, each link (%(default)s)")
    parser.add_argument("--supervisors", type=choose.count, default=20, help="to kill (%(default)s)")
    parser.add_argument(
        "--link", choices=TRANSPORTS, action="append", help="more than once for several (all)"
    )
    parser.add_argument(
        "--in-a-row", type=choose.count, default=1,
        help="workers of one VM to kill before another takes its place; each waits longer for the next"
        " one, and more than 5 are too many (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the moments (a random one)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Kill workers on each kind of link, then supervisors."""
    options.link = options.link or list(TRANSPORTS)
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    moments = random.Random(options.seed)
    for link in options.link:
        _kill_workers(options, journal, link, moments)
    _kill_supervisors(options, journal, moments)


@contextlib.contextmanager
def _running() -> Iterator[Switch]:
    """Give a switch with a listener of each kind."""
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="bh-"))
        stack.callback(shutil.rmtree, directory)
        switch = Switch(directory)
        stack.push(end_of(switch))
        yield switch.start(*_flags(switch))


def _flags(switch: Switch) -> list[str]:
    return switch.arguments(qemu=True, bess=True, vfkit=1, vhost=True)


class Partner:
    """The VM whose worker is killed; ``fresh`` makes it another one."""

    def __init__(self, switch: Switch, link: str, stack: contextlib.ExitStack) -> None:
        if link == "tap" and (os.geteuid() or not os.access("/dev/net/tun", os.W_OK)):
            raise MissingError("a TAP in a network namespace needs root and /dev/net/tun")
        self._switch, self._link = switch, link
        self._space = stack.enter_context(contextlib.closing(Namespace("tap"))) if link == "tap" else None
        self._one = switch.connect("unix")
        stack.callback(self._one.close)
        self._number = len(KEPT)
        self.name = ""

    def fresh(self) -> Conversation:
        """Return a conversation with a new VM, which is going on; the last one's port is gone."""
        if self.name and port_of(self._switch, self.name)["state"]:
            with contextlib.suppress(LocalError):  # it may have gone meanwhile, with its VM
                ask(self._switch, "detach", target=self.name)
            wait_for(lambda: not port_of(self._switch, self.name)["state"], "the last VM's port to go")
        self._number += 1
        address = mac(self._number)
        talk = Conversation(self._one, mac(1), self._connect(), address)
        talk.begin()
        self.name = name_of(self._switch, address)
        return talk

    def _connect(self) -> FakeVM:
        if self._space is None:
            return self._switch.connect(LINKS[self._link], f"vm{self._number}")
        device = f"{self._space.interface},netns={self._space.netns}"
        ask(self._switch, "attach", transport="tap", url=device)
        return self._space.packet_vm()


def _kill_workers(options: argparse.Namespace, journal: Journal, link: str, moments: random.Random) -> None:
    with contextlib.ExitStack() as stack:
        partner: Partner | None = None
        talk: Conversation | None = None
        for number in range(options.workers):
            with journal.run(killed=WORKER, link=link, number=number) as run:
                partner = partner or Partner(stack.enter_context(_running()), link, stack)
                if talk is None or talk.closed or number % options.in_a_row == 0:
                    if talk is not None:
                        talk.ends[1].vm.close()
                    talk = None
                    talk = partner.fresh()
                run.update(_kill_worker(partner, talk, moments))
            if "missing" in journal.runs[-1]:
                return


def _kill_worker(partner: Partner, talk: Conversation, moments: random.Random) -> Run:
    switch = partner._switch
    lost, wrong, sent, began = talk.lost, len(talk.wrong), _sent(talk), time.monotonic()
    talk.run(MOMENT)
    rate = (_sent(talk) - sent) / (time.monotonic() - began)
    epoch = kill_worker(switch, partner.name, talk, moments.uniform(0.0, MOMENT))
    for end in talk.ends:
        end.mark()
    went_on = goes_on(switch, partner.name, epoch, talk, LOOK_EVERY)
    gap = max(end.worst_gap for end in talk.ends)
    talk.settle()
    return {
        "went_on": went_on,
        "rate": rate,
        "lost": talk.lost - lost,
        "wrong": len(talk.wrong) - wrong,
        "gap": gap if went_on else None,
    }


def _sent(talk: Conversation) -> int:
    return sum(end.sent for end in talk.ends)


def _kill_supervisors(options: argparse.Namespace, journal: Journal, moments: random.Random) -> None:
    with _running() as switch:
        kinds = ("vhost", "unixpacket", "unix", "unixgram")
        vms = [switch.connect(kind, kind) for kind in kinds]
        busy = Conversation(vms[0], KEPT[0], vms[1], KEPT[1])
        aside = Conversation(vms[2], KEPT[2], vms[3], KEPT[3])
        for talk in (busy, aside):
            talk.begin()
        for number in range(options.supervisors):
            with journal.run(killed=SUPERVISOR, link="vhost, seqpacket, stream, dgram", number=number) as run:
                newcomer = mac(len(KEPT) + 1 + number)
                run.update(_kill_supervisor(switch, busy, aside, newcomer, moments))
        for vm in vms:
            vm.close()


def _kill_supervisor(
    switch: Switch, busy: Conversation, aside: Conversation, newcomer: bytes, moments: random.Random
) -> Run:
    before = workers(switch)
    lost, wrong, sent, began = busy.lost, len(busy.wrong), _sent(busy), time.monotonic()
    for end in busy.ends:
        end.mark()
    with busy.going_on():
        time.sleep(moments.uniform(0.0, MOMENT))
        kill_supervisor(switch)
        time.sleep(moments.uniform(0.0, 10 * MOMENT))
        start = time.monotonic()
        switch.start(*_flags(switch))
        ready = time.monotonic() - start
        new = switch.connect("unix")
        talk = Conversation(aside.ends[0].vm, KEPT[2], new, newcomer)
        if not talk.flows(1):
            raise RuntimeError(f"a newcomer's link was closed: {talk.closed}")
        heard = time.monotonic() - start
        rate = (_sent(busy) - sent) / (time.monotonic() - began)
        gap = max(end.worst_gap for end in busy.ends)
    talk.settle()
    new.close()
    wait_for(lambda: len(ask(switch)["ports"]) == len(before), "the newcomer's port to go")
    return {
        "went_on": not busy.closed and workers(switch) == before,
        "rate": rate,
        "lost": busy.lost - lost,
        "wrong": len(busy.wrong) - wrong + len(talk.wrong),
        "gap": gap,
        "ready": ready,
        "heard": heard,
    }


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each kind of link, and one of supervisors."""
    for killed, link in dict.fromkeys((run["killed"], run["link"]) for run in journal.runs):
        trouble = journal.trouble(killed=killed, link=link)
        if trouble:
            yield killed, link, trouble
            continue
        runs = [run for run in journal.of(killed=killed, link=link) if "went_on" in run]
        on = [run for run in runs if run["went_on"]]
        gaps = [run["gap"] * 1e3 for run in on]
        yield (
            killed,
            link,
            f"{len(runs)}",
            f"{len(on)}",
            f"{statistics.median(run['rate'] for run in runs):,.0f}",
            _figures([run["lost"] for run in runs]),
            f"{sum(run['wrong'] for run in runs):,}",
            f"{statistics.median(gaps):,.1f}" if gaps else NOTHING,
            f"{max(gaps):,.1f}" if gaps else NOTHING,
            _figures([run["ready"] * 1e3 for run in runs if "ready" in run]),
            _figures([run["heard"] * 1e3 for run in runs if "heard" in run]),
        )


def _figures(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f}, at most {max(values):,.0f}" if values else NOTHING


BENCHMARK = Benchmark(
    "continuity",
    "what links lose when a worker or the supervisor is killed under traffic",
    "Two VMs send each other numbered frames, at most 64 of them on their way, and check each byte of what"
    " comes. A worker is killed (kill -9) at a random moment; its link goes on with the next worker, except a"
    " stream that stood within a frame. Or the supervisor is killed and another one started: links go on if"
    " none was closed and every VM still has the same worker. A gap is the longest time in which one of both"
    " got nothing; lost is what was on its way, and what both send meanwhile, a frame every 2 ms.",
    COLUMNS,
    arguments,
    measure,
    rows,
)

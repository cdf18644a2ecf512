"""Workers as the supervisor sees them: a real template whose forks do nothing but what a test needs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forwarder._core import LAYOUT
from forwarder.channel import Channel, close_all
from forwarder.loop import Loop
from forwarder.messages import Assign, Claim, WantRing
from forwarder.names import Identity, Incarnation, Policy, PortRecord
from supervisor.base import child_process
from supervisor.pool import worker_pool
from supervisor.pool.channels import WorkerChannel, WorkerChannels
from supervisor.pool.pool_policy import SPARES, STARTING
from supervisor.pool.worker_pool import DIAL_S, WorkerPool
from tests.helpers.fakes import PATIENCE, reraise, turn_until
from tests.helpers.forking import forking

WORKER = """
channel = Channel(socket.socket(fileno=0))
channel.send(Ready({layout}, Cell((), 0)), (1, 1))
poll = select.poll()
poll.register(channel.fileno(), select.POLLIN)
while True:
    poll.poll()
    try:
        message = channel.receive()
    except ChannelClosedError:
        sys.exit(0)
    if message is not None and not isinstance(message[0], Assign):
        sys.exit(message[0].port)
"""
GOOD = WORKER.format(layout=LAYOUT)


def record(port: int, epoch: int = 1) -> PortRecord:
    return PortRecord(port, epoch, epoch, f"vm-{port}", "bess", Policy())


class Bench:
    """A worker pool with its server; every port is given to an idle worker."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
        monkeypatch.setattr(child_process, "command", lambda _, path: forking(code, path))
        self.loop = Loop(reraise)
        self.given: dict[int, WorkerChannel] = {}
        self.losses: list[tuple[int, str]] = []
        self.most_starting = 0
        self.gone: list[Identity] = []
        self.channels = WorkerChannels(self.loop, self, time.monotonic)
        self.pool = WorkerPool(self.loop, str(directory), self)

    def connected(self, identity: Identity, channel: Channel) -> None:
        self.channels.add(identity, channel)

    def process_ended(self, identity: Identity) -> None:
        self.gone.append(identity)

    def give(self, worker: WorkerChannel, wanted: Incarnation) -> bool:
        null = os.open("/dev/null", os.O_RDONLY)
        sent = self.channels.send(worker, Assign(record(wanted.port), 1, 1, 1000, 1000, False), (null,) * 5)
        os.close(null)
        if sent:
            worker.served = wanted
            self.given[wanted.port] = worker
        else:
            self.pool.want(wanted)
        return sent

    def worker_lost(self, lost: Incarnation, how: str) -> None:
        self.losses.append((lost.port, how))

    def ready(self, worker: WorkerChannel, layout: int, proc: tuple[int, ...]) -> None:
        close_all(proc)
        if not self.pool.ready(worker, "" if layout == LAYOUT else "it is too old"):
            self.channels.drop(worker)

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        raise AssertionError

    def lost(self, worker: WorkerChannel) -> None:
        self.pool.channel_lost(worker)

    def reported(self, served: Incarnation, worker: WorkerChannel, report: object) -> None:
        raise AssertionError

    asked = kept = reported  # type: ignore[assignment]

    def tick(self, now: float) -> None:
        self.pool.tick(now)
        self.most_starting = max(self.most_starting, len(self.pool._starting))

    def until(self, condition: object) -> None:
        turn_until(self.loop, condition, self.tick)  # type: ignore[arg-type]

    def idle(self) -> int:
        return len(self.pool.processes) - len(self.given) - len(self.pool._starting)

    def close(self) -> None:
        self.pool.stop(time.monotonic())
        self.channels.close()
        for process in list(self.pool.processes._processes.values()):
            self.pool.processes.end(process.identity, 0.0, notified=False)
        self.until(lambda: not len(self.pool.processes))
        self.loop.close()


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Bench]]:
    """Give a way to start one pool, whose workers run this code."""
    with contextlib.ExitStack() as stack:
        yield lambda code: stack.enter_context(contextlib.closing(Bench(tmp_path, monkeypatch, code)))


@pytest.fixture
def bench(begin: Callable[[str], Bench]) -> Bench:
    return begin(GOOD)


def test_spares_wait_and_are_replaced_when_used(bench: Bench) -> None:
    bench.until(lambda: bench.idle() == SPARES)
    bench.pool.want(record(1).incarnation)
    bench.pool.tick(time.monotonic())
    assert 1 in bench.given, "a spare takes the port at once"
    bench.until(lambda: bench.idle() == SPARES)


def test_a_crowd_of_ports_is_served_by_a_few_starts_at_a_time(bench: Bench) -> None:
    for port in range(1, 13):
        bench.pool.want(record(port).incarnation)
    bench.until(lambda: len(bench.given) == 12)
    assert list(bench.given) == list(range(1, 13)), "first come, first served"
    assert bench.most_starting <= STARTING
    assert len({worker.pid for worker in bench.given.values()}) == 12


@pytest.mark.parametrize(("ordered", "how"), [(0, "ended with 0"), (7, "ended with 7")])
def test_the_end_of_a_worker_with_a_port_is_reported(bench: Bench, ordered: int, how: str) -> None:
    bench.pool.want(record(1).incarnation)
    bench.until(lambda: bench.given)
    if ordered:
        bench.channels.send(bench.given[1], WantRing(ordered, 1))
    else:
        bench.channels.drop(bench.given[1])
    bench.until(lambda: bench.losses)
    ((port, said),) = bench.losses
    assert port == 1
    assert how in said
    bench.given.clear()


def test_a_spare_that_ends_is_replaced(bench: Bench) -> None:
    bench.until(lambda: bench.idle() == SPARES)
    before = set(bench.pool.processes._processes)
    os.kill(next(iter(before)).pid, 9)
    bench.until(lambda: not before <= set(bench.pool.processes._processes))
    bench.until(lambda: bench.idle() == SPARES)


def test_a_failed_start_of_a_worker_is_reported_and_delays_the_next_attempt(
    begin: Callable[[str], Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = begin("sys.exit(5)")
    bench.pool.want(record(1).incarnation)
    bench.until(lambda: bench.losses)
    assert bench.losses[0][0] == 1
    assert "did not get ready: it ended with 5" in bench.losses[0][1]
    started = time.monotonic()
    while time.monotonic() - started < 0.5:
        bench.loop.turn(0.01)
        bench.tick(time.monotonic())
    assert caplog.text.count("did not get ready") == 1


def test_a_worker_that_never_gets_ready_is_ended(
    begin: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "READY_S", 0.1)
    bench = begin("time.sleep(60)")
    bench.pool.want(record(1).incarnation)
    bench.until(lambda: bench.losses)
    assert "SIGTERM" in bench.losses[0][1]


def test_an_unusable_worker_is_ended_and_reported(
    begin: Callable[[str], Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = begin(WORKER.format(layout=LAYOUT + 1))
    bench.until(lambda: "is not used: it is too old" in caplog.text)
    assert not bench.given


def test_a_stop_ends_spares_and_those_that_start(bench: Bench) -> None:
    bench.until(lambda: len(bench.pool.processes) > 0)
    bench.pool.stop(time.monotonic())
    deadline = time.monotonic() + PATIENCE
    while len(bench.pool.processes):
        assert time.monotonic() < deadline
        bench.loop.turn(0.01)
        bench.tick(time.monotonic())


def test_a_worker_that_ends_its_channel_again_and_again_is_dialled_with_pauses(bench: Bench) -> None:
    bench.pool.want(record(1).incarnation)
    bench.until(lambda: bench.given)
    worker, dialled = bench.given[1], []
    for _ in range(3):
        bench.pool.channel_lost(worker)
        dialled.append(bench.pool.dialer.deadline())
        bench.pool.dialer.forget(worker.identity)
        bench.pool.returned(worker)
    assert [round(later - dialled[0], 6) for later in dialled] == [0.0, DIAL_S, 2 * DIAL_S]

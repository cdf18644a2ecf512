"""The descriptor server: who may say what, and who gets which ring, doorbell and flood ring."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder import _core
from forwarder.acceptor import Pauses
from forwarder.channel import Channel, ChannelClosedError
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import LARGE_RING_BYTES, RING_BYTES, Identity, Incarnation, Policy, PortRecord
from forwarder.wire import (
    Claim,
    Drain,
    Floods,
    Message,
    Ready,
    RingRx,
    RingTx,
    WantFloods,
    WantRing,
    encode,
)
from supervisor.base.proc import start_time
from supervisor.fleet import descriptors
from supervisor.fleet.descriptors import DescriptorServer, WorkerChannel
from supervisor.fleet.fd_store import FdStore, make_ring
from tests.helpers.fakes import reraise, turn_a_while, turn_until
from tests.helpers.guests.fixtures import short_directory

SELF = Identity(os.getpid(), start_time(os.getpid()))


def record(port: int, epoch: int | None = None) -> PortRecord:
    return PortRecord(port, epoch or port, port, f"vm-{port}", "bess", Policy())


class FakeRegistry:
    """Knows which worker is the worker of which port."""

    def __init__(self) -> None:
        self.spares: list[WorkerChannel] = []
        self.claims: list[tuple[WorkerChannel, Claim, tuple[int, ...]]] = []
        self.gone: list[WorkerChannel] = []
        self.holders: dict[tuple[int, int], WorkerChannel] = {}
        self.records: dict[Incarnation, PortRecord] = {}

    def ready(self, worker: WorkerChannel, version: int) -> None:
        self.spares.append(worker)

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        self.claims.append((worker, claim, descriptors))

    def lost(self, worker: WorkerChannel) -> None:
        self.gone.append(worker)

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        return self.holders.get((port, epoch))

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        return self.records.get(incarnation)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "d")
        self.loop = Loop(reraise)
        self.registry = FakeRegistry()
        self.fd_store = FdStore()
        self.server = DescriptorServer(
            self.loop, Pauses(time.monotonic), self.path, self.registry, self.fd_store
        )
        self._channels: list[Channel] = []

    def channel(self) -> Channel:
        self._channels.append(Channel.connect(self.path))
        return self._channels[-1]

    def spare(self) -> tuple[Channel, WorkerChannel]:
        channel, before = self.channel(), len(self.registry.spares)
        channel.send(Ready(SELF, 1))
        turn_until(self.loop, lambda: len(self.registry.spares) > before)
        return channel, self.registry.spares[-1]

    def worker(self, port: int) -> Channel:
        """A worker that has a port and forwards."""
        channel, worker = self.spare()
        self.fd_store.take(port, os.open("/dev/null", os.O_RDONLY))
        self.fd_store.for_worker(record(port).incarnation)
        worker.served = record(port).incarnation
        self.registry.records[worker.served] = record(port)
        self.registry.holders[port, port] = worker
        return channel

    def receive(self, channel: Channel) -> tuple[Message, tuple[int, ...]]:
        found: list[tuple[Message, tuple[int, ...]]] = []

        def received() -> bool:
            message = channel.receive()
            if message is not None:
                found.append(message)
            return bool(found)

        turn_until(self.loop, received)
        return found[0]

    def ended(self, channel: Channel) -> bool:
        turn_a_while(self.loop)
        try:
            channel.receive()
        except ChannelClosedError:
            return True
        return False

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.server.close()
        self.fd_store.close()
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd"))
    with short_directory() as directory:
        made = Bench(directory)
        yield made
        made.close()
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors leaked"


def close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def test_a_spare_introduces_itself_and_its_end_is_reported_once(bench: Bench) -> None:
    channel, worker = bench.spare()
    assert (worker.pid, worker.identity) == (os.getpid(), SELF)
    channel.close()
    turn_until(bench.loop, lambda: bench.registry.gone)
    bench.server.drop(worker)
    assert bench.registry.gone == [worker]


def test_a_claim_brings_its_descriptors(bench: Bench) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    bench.channel().send(Claim(SELF, 1, record(3)), [null] * 5)
    os.close(null)
    turn_until(bench.loop, lambda: bench.registry.claims)
    ((worker, claim, fds),) = bench.registry.claims
    assert claim.record == record(3)
    assert len(fds) == 5
    assert worker.identity == SELF
    close(fds)


@pytest.mark.parametrize(
    "first",
    [Ready(Identity(1, 1), 1), WantRing(1, 1), WantFloods(((1, 1),)), Drain(1, 1)],
)
def test_who_does_not_say_who_it_is_is_hung_up_on(bench: Bench, first: Message) -> None:
    channel = bench.channel()
    channel.send(first)
    assert bench.ended(channel)
    assert not bench.registry.spares


def test_garbage_before_the_introduction_ends_the_channel_and_later_does_not(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    raw.connect(bench.path)
    raw.sendmsg([b"garbage"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("2i", 0, 1))])
    turn_until(bench.loop, lambda: bench.registry.gone)
    raw.close()
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    raw.connect(bench.path)
    raw.send(encode(Ready(SELF, 1)))
    turn_until(bench.loop, lambda: bench.registry.spares)
    for _ in range(100):
        raw.send(b"garbage")
    turn_a_while(bench.loop)
    assert len(bench.registry.gone) == 1
    assert caplog.text.count("bad message") == 1
    raw.close()


def test_only_so_many_may_stay_unknown(bench: Bench) -> None:
    silent = [bench.channel() for _ in range(descriptors.UNKNOWN + 1)]
    turn_a_while(bench.loop)
    assert bench.ended(silent[-1])
    assert not bench.ended(silent[0])


def test_a_ring_has_two_ends_and_the_doorbell_of_its_reader(bench: Bench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    one.send(WantRing(2, 2))
    received, (rx, read_tail) = bench.receive(two)
    assert received == RingRx(1, 1)
    sent, (tx, tail, doorbell) = bench.receive(one)
    assert sent == RingTx(2, 2)
    assert os.path.samestat(os.fstat(tx), os.fstat(rx))
    assert os.path.samestat(os.fstat(tail), os.fstat(read_tail))
    with pytest.raises(PermissionError):
        mmap.mmap(rx, 4096)
    held = bench.fd_store.get(2)
    assert held is not None
    os.eventfd_write(doorbell, 1)
    assert os.eventfd_read(held.doorbell) == 1
    close((rx, read_tail, tx, tail, doorbell))


def test_there_is_no_ring_to_who_is_not_there_or_from_a_past_life(bench: Bench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    own = bench.registry.records.pop(Incarnation(1, 1))  # another worker has the port
    one.send(WantRing(2, 2))
    one.send(WantFloods(((2, 2),)))
    floods, fds = bench.receive(one)
    assert floods == Floods(((2, 2),)), "what is asked for first and not answered gets no answer"
    close(fds)
    bench.registry.records[own.incarnation] = own
    one.send(WantRing(2, 9))
    one.send(WantRing(3, 3))
    one.send(WantRing(2, 2))
    ring, writers = bench.receive(one)
    assert ring == RingTx(2, 2)
    half, readers = bench.receive(two)
    assert half == RingRx(1, 1)
    close((*writers, *readers))
    assert one.receive() is two.receive() is None


def test_a_worker_gets_a_ring_although_its_hello_is_still_on_its_way(bench: Bench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    del bench.registry.holders[1, 1]
    one.send(WantRing(2, 2))
    message, writers = bench.receive(one)
    assert message == RingTx(2, 2)
    message, readers = bench.receive(two)
    assert message == RingRx(1, 1)
    close((*writers, *readers))


def test_a_ring_whose_reader_has_just_gone_is_lost(bench: Bench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    two.close()
    one.send(WantRing(2, 2))
    turn_until(bench.loop, lambda: bench.registry.gone)
    turn_a_while(bench.loop)
    assert one.receive() is None


def test_no_ring_is_given_whose_reader_might_not_get_its_half(bench: Bench) -> None:
    """What waits in the supervisor is lost with it, and the writer would go on filling half a ring."""
    one, two = bench.worker(1), bench.worker(2)
    reader = bench.registry.holders[2, 2]
    while not reader.channel.backlog:
        bench.server.send(reader, Drain(9, 9))
    one.send(WantRing(2, 2))
    one.send(WantFloods(((2, 2),)))
    floods, fds = bench.receive(one)
    assert floods == Floods(((2, 2),)), "no ring yet"
    close(fds)
    while reader.channel.backlog:
        assert bench.receive(two) == (Drain(9, 9), ())
    one.send(WantRing(2, 2))
    ring, halves = bench.receive(one)
    assert ring == RingTx(2, 2)
    close(halves)
    while (received := bench.receive(two))[0] == Drain(9, 9):
        pass
    assert received[0] == RingRx(1, 1)
    close(received[1])


def test_flood_rings_are_sent_in_batches_without_those_that_are_missing(bench: Bench) -> None:
    reader = bench.worker(1)
    for port in range(2, 252):
        bench.fd_store.take(port, os.open("/dev/null", os.O_RDONLY))
        bench.fd_store.for_worker(record(port).incarnation)
        bench.registry.holders[port, port] = bench.registry.spares[0]
    wanted = tuple((port, port) for port in range(2, 252))
    reader.send(WantFloods((*wanted, (252, 252), (2, 99))))
    got: tuple[tuple[int, int], ...] = ()
    while len(got) < len(wanted):
        message, fds = bench.receive(reader)
        assert isinstance(message, Floods)
        assert len(fds) == len(message.ports) <= 200
        got += message.ports
        close(fds)
    assert got == wanted


def test_a_worker_that_does_not_read_is_given_up_and_nobody_waits_for_it(bench: Bench) -> None:
    bench.worker(1)
    stuck = bench.registry.spares[0]
    for _ in range(100_000):
        if not bench.server.send(stuck, Drain(1, 1)):
            break
    assert bench.registry.gone == [stuck]


# FdStore: the descriptors that outlive a worker.


def test_a_port_keeps_doorbell_and_block_and_gets_a_flood_ring_for_each_epoch() -> None:
    fd_store = FdStore()
    fd_store.take(1, os.open("/dev/null", os.O_RDONLY))
    first = fd_store.for_worker(record(1, 1).incarnation)
    assert fd_store.for_worker(record(1, 1).incarnation) == first
    before = os.fstat(first[4])
    second = fd_store.for_worker(record(1, 2).incarnation)
    assert second[:4] == first[:4]
    assert not os.path.samestat(os.fstat(second[4]), before)
    assert _core.StatsPage(second[3]).counters()
    fd_store.release(1)
    fd_store.release(1)
    assert fd_store.get(1) is None
    fd_store.close()


def test_the_flood_doorbell_is_one_for_all() -> None:
    fd_store = FdStore()
    bells = set()
    for port in (1, 2):
        fd_store.take(port, os.open("/dev/null", os.O_RDONLY))
        bells.add(fd_store.for_worker(record(port).incarnation)[2])
    assert len(bells) == 1
    fd_store.close()


def claimed(bell: int) -> tuple[int, ...]:
    return (
        os.open("/dev/null", os.O_RDONLY),
        _core.doorbell_create(),
        os.dup(bell),
        _core.stats_page_create(),
        _core.flood_create(1 << 19, 1, 1),
    )


def test_after_a_takeover_the_doorbell_is_the_one_that_workers_sleep_on() -> None:
    bell = _core.doorbell_create()
    fd_store = FdStore()
    fd_store.adopt(record(1), claimed(bell))
    fd_store.adopt(record(2), claimed(bell))
    fd_store.take(3, os.open("/dev/null", os.O_RDONLY))
    os.eventfd_write(fd_store.for_worker(record(3).incarnation)[2], 5)
    assert os.eventfd_read(bell) == 5
    fd_store.close()
    os.close(bell)


def test_a_shortage_is_said_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    fd_store = FdStore()
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_core, "stats_page_create", fail)
    with pytest.raises(LocalError, match="no descriptors or memory for another port"):
        fd_store.take(1, 0)
    assert len(os.listdir("/proc/self/fd")) == before
    assert fd_store.get(1) is None


@pytest.mark.parametrize(
    ("source", "destination", "size"),
    [
        ("tap", "tap", LARGE_RING_BYTES),
        ("qemu", "tap", LARGE_RING_BYTES),
        ("tap", "qemu", RING_BYTES),
        ("qemu", "vhost", LARGE_RING_BYTES),
    ],
)
def test_a_ring_towards_a_tap_holds_a_window(source: str, destination: str, size: int) -> None:
    ring = make_ring(record(1)._replace(transport=source), record(2)._replace(transport=destination))
    try:
        assert size <= os.fstat(ring.writing).st_size < size + RING_BYTES  # a header goes with it
    finally:
        close(ring)

"""Rings are given to two ports that may talk, to the consumer only after its producer has sealed them."""

from __future__ import annotations

import mmap
import os
from itertools import pairwise

import pytest

from forwarder.channel import Channel, close_all
from forwarder.messages import (
    Drain,
    Floods,
    Message,
    RingIdle,
    RingOpen,
    RingOver,
    RingRx,
    RingSealed,
    RingTx,
    WantFloods,
    WantRing,
)
from forwarder.names import Incarnation, Policy
from supervisor.pool.channels import UNREAD
from supervisor.rings import rings
from tests.helpers.core.bell_listener import BellListener
from tests.helpers.fakes import turn_a_while, turn_until
from tests.helpers.fleet_bench import FleetBench, record

ALONE = Policy(isolated=True)


def nothing(bench: FleetBench, *channels: object) -> bool:
    turn_a_while(bench.loop)
    return all(channel.receive() is None for channel in channels)  # type: ignore[attr-defined]


def test_a_ring_is_sealed_before_its_consumer_gets_it(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    one.send(WantRing(2, 2))
    fds, writer = bench.sealed(one, 2)
    received, (rx, read_tail) = bench.receive(two)
    assert received == RingRx(1, 1)
    assert bench.receive(one) == (RingOpen(2, 2), ())
    tx, tail, doorbell = fds
    assert os.path.samestat(os.fstat(tx), os.fstat(rx))
    assert os.path.samestat(os.fstat(tail), os.fstat(read_tail))
    again = os.open(f"/proc/self/fd/{rx}", os.O_RDWR)
    for descriptor in (rx, again):
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, 4096)
    held = bench.fd_store.get(2)
    assert held is not None
    with BellListener(held.doorbell) as listener:
        os.eventfd_write(doorbell, 1)
        assert listener.rang()
    close_all((again, rx, read_tail, *fds))
    assert not writer.broken


def test_a_seal_is_looked_at_and_not_believed(bench: FleetBench, caplog: pytest.LogCaptureFixture) -> None:
    one, two = bench.worker(1), bench.worker(2)
    one.send(WantRing(2, 2))
    _, fds = bench.receive(one)
    one.send(RingSealed(2, 2))
    turn_until(bench.loop, lambda: "is reported as sealed, but it is not" in caplog.text)
    assert nothing(bench, one, two)
    close_all(fds)


@pytest.mark.parametrize("isolated", [1, 2])
def test_nothing_is_given_to_ports_that_may_not_talk(
    bench: FleetBench, isolated: int, caplog: pytest.LogCaptureFixture
) -> None:
    policies = {isolated: ALONE}
    one = bench.worker(1, policies.get(1, Policy()))
    two = bench.worker(2, policies.get(2, Policy()))
    one.send(WantRing(2, 2))
    one.send(WantFloods(((2, 2),)))
    assert bench.receive(one) == (Floods(()), ())
    assert nothing(bench, one, two)
    assert "port 1 asks for port 2, out of its reach: refused" in caplog.text


def test_a_port_that_is_isolated_while_its_ring_is_on_its_way_gets_none(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    one.send(WantRing(2, 2))
    fds, _ = bench.sealed(one, 2)
    bench.registry[2] = record(2, policy=ALONE)
    assert nothing(bench, two, one)
    close_all(fds)


def test_a_port_has_no_ring_to_itself(bench: FleetBench) -> None:
    one = bench.worker(1)
    one.send(WantRing(1, 1))
    one.send(WantFloods(((1, 1),)))
    assert bench.receive(one) == (Floods(()), ())


def test_there_is_no_ring_to_an_absent_port_or_from_a_past_epoch(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    bench.registry[1] = record(1, epoch=9)  # another worker has the port
    one.send(WantRing(2, 2))
    assert nothing(bench, one, two)
    bench.registry[1] = record(1)
    one.send(WantRing(2, 9))
    one.send(WantRing(3, 3))
    assert nothing(bench, one, two)
    one.send(RingSealed(2, 2))
    assert nothing(bench, one, two), "nothing was offered"


def test_a_worker_gets_a_ring_although_its_hello_is_still_on_its_way(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    bench.live.discard((1, 1))
    one.send(WantRing(2, 2))
    fds, _ = bench.sealed(one, 2)
    message, readers = bench.receive(two)
    assert message == RingRx(1, 1)
    close_all((*fds, *readers))


def test_a_ring_whose_reader_has_gone_meanwhile_is_not_opened(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    one.send(WantRing(2, 2))
    fds, _ = bench.sealed(one, 2)
    two.close()
    turn_until(bench.loop, lambda: bench.gone)
    assert nothing(bench, one)
    close_all(fds)


def test_no_ring_is_given_whose_reader_might_not_get_its_half(bench: FleetBench) -> None:
    """Messages that wait in the supervisor are lost with it; a ring would have a writer and no reader."""
    one, two = bench.worker(1), bench.worker(2)
    reader = bench.workers[2]
    while not reader.channel.backlog:
        bench.channels.send(reader, Drain())
    one.send(WantRing(2, 2))
    assert nothing(bench, one)
    while reader.channel.backlog:
        assert bench.receive(two) == (Drain(), ())
    one.send(WantRing(2, 2))
    fds, _ = bench.sealed(one, 2)
    while (received := bench.receive(two))[0] == Drain():
        pass
    assert received[0] == RingRx(1, 1)
    close_all((*fds, *received[1]))


def offered(bench: FleetBench, producer: Channel) -> object:
    """Take the next message of a worker and close its descriptors."""
    message, fds = bench.receive(producer)
    close_all(fds)
    return message


def test_a_ring_of_one_pair_is_not_made_again_at_once(bench: FleetBench) -> None:
    one = bench.worker(1)
    bench.worker(2)
    one.send(WantRing(2, 2))
    offered(bench, one)
    one.send(WantRing(2, 2))
    assert nothing(bench, one)
    bench.now += rings.AGAIN_S
    one.send(WantRing(2, 2))
    assert offered(bench, one) == RingTx(2, 2)


def test_the_next_worker_of_either_port_gets_its_rings_at_once(bench: FleetBench) -> None:
    one = bench.worker(1)
    bench.worker(2)
    one.send(WantRing(2, 2))
    offered(bench, one)
    bench.rings.forget(2)
    two = bench.worker(2, epoch=3)
    one.send(WantRing(2, 3))
    assert offered(bench, one) == RingTx(2, 3)
    two.send(WantRing(1, 1))
    offered(bench, two)
    bench.rings.forget(2)
    next_two = bench.worker(2, epoch=4)
    next_two.send(WantRing(1, 1))
    assert offered(bench, next_two) == RingTx(1, 1)


def toggle(bench: FleetBench) -> None:
    """Take port 2 out of reach and back."""
    for policy in (ALONE, Policy()):
        before, bench.registry[2] = bench.registry[2], record(2, policy=policy)
        bench.rings.changing(before, bench.registry[2], bench.now)


def test_ports_that_were_apart_get_their_rings_at_once(bench: FleetBench) -> None:
    one = bench.worker(1)
    bench.worker(2)
    one.send(WantRing(2, 2))
    offered(bench, one)
    toggle(bench)
    one.send(WantRing(2, 2))
    assert offered(bench, one) == RingTx(2, 2)


def test_a_ring_that_an_operator_has_taken_back_does_not_count(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    for _ in range(2 * rings.MOST):
        for worker, port in ((one, 2), (two, 1)):
            worker.send(WantRing(port, port))
            assert offered(bench, worker) == RingTx(port, port)
        toggle(bench)
    assert bench.replaced == []


def test_a_worker_gains_no_more_than_that_when_it_is_parted_from_another(bench: FleetBench) -> None:
    one = bench.worker(1)
    bench.worker(2)
    got = partings = 0
    while not bench.replaced and partings < rings.MOST:
        toggle(bench)
        partings += 1
        for _ in range(5):
            one.send(WantRing(2, 2))
            turn_a_while(bench.loop)
            while (received := one.receive()) is not None:
                got += 1
                close_all(received[1])
            bench.now += rings.LONGEST_S
    assert bench.replaced[0] == Incarnation(1, 1)
    assert got <= rings.MOST + partings


def test_a_worker_that_asks_for_ring_after_ring_is_replaced(
    bench: FleetBench, caplog: pytest.LogCaptureFixture
) -> None:
    """It may keep them all: nothing takes back what it has mapped."""
    one = bench.worker(1)
    bench.worker(2)
    times: list[float] = []
    while not bench.replaced:
        one.send(WantRing(2, 2))
        turn_a_while(bench.loop)
        while (received := one.receive()) is not None:
            times.append(bench.now)
            close_all(received[1])
        bench.now += rings.AGAIN_S if len(times) < 7 else rings.LONGEST_S
    assert len(times) == rings.MOST
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:6] == [rings.AGAIN_S * 2**number for number in range(6)]
    assert pauses[-1] == rings.LONGEST_S
    assert bench.replaced == [Incarnation(1, 1)]
    assert "asks for ring after ring" in caplog.text
    bench.rings.forget(1)
    bench.rings.worker_gone(1)
    next_one = bench.worker(1, epoch=9)
    next_one.send(WantRing(2, 2))
    assert offered(bench, next_one) == RingTx(2, 2)


def test_offers_that_are_never_taken_up_have_a_bound(
    bench: FleetBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rings, "OFFERS", 3)
    one = bench.worker(1)
    for port in range(2, 8):
        bench.worker(port)
    for port in range(2, 8):
        one.send(WantRing(port, port))
    for _ in range(3):
        close_all(bench.receive(one)[1])
    assert nothing(bench, one)
    bench.rings.forget(1)


@pytest.mark.parametrize("request_", [WantFloods(((2, 2),)), WantRing(2, 2)])
def test_a_worker_that_does_not_read_is_given_nothing_more(bench: FleetBench, request_: Message) -> None:
    one = bench.worker(1)
    bench.worker(2)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        one.send(request_)
        bench.now += rings.LONGEST_S
        turn_a_while(bench.loop)
    assert UNREAD < bench.workers[1].channel.unread < UNREAD + 4096
    assert len(os.listdir("/proc/self/fd")) <= before + 2, "one offer, and nothing that waits"
    while (received := one.receive()) is not None:
        close_all(received[1])
    bench.now += rings.LONGEST_S
    one.send(request_)
    message, fds = bench.receive(one)
    assert fds, "it reads again"
    assert isinstance(message, (Floods, RingTx))
    close_all(fds)


def test_the_consumer_is_told_of_a_ring_that_is_given_up(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    one.send(RingIdle(2, 2))
    assert bench.receive(two) == (RingOver(1, 1), ())
    one.send(RingIdle(2, 9))
    one.send(RingIdle(1, 1))
    assert nothing(bench, one, two)


def test_flood_rings_are_sent_in_batches_without_those_that_are_missing(bench: FleetBench) -> None:
    reader = bench.worker(1)
    for port in range(2, 252):
        bench.fd_store.take(port, os.open(os.devnull, os.O_RDONLY))
        bench.fd_store.for_worker(Incarnation(port, port))
    other = bench.channel()
    for port in range(2, 252):
        worker = type(bench.workers[1])(other, bench.workers[1].identity, 0.0)
        worker.served = Incarnation(port, port)
        bench.workers[port], bench.registry[port] = worker, record(port)
        bench.live.add((port, port))
    wanted = tuple((port, port) for port in range(2, 252))
    reader.send(WantFloods((*wanted, (252, 252), (2, 99))))
    got: tuple[tuple[int, int], ...] = ()
    while len(got) < len(wanted):
        message, fds = bench.receive(reader)
        assert isinstance(message, Floods)
        assert len(fds) == len(message.ports) <= 200
        got += message.ports
        close_all(fds)
    assert got == wanted


def test_the_ring_of_a_reserved_port_is_given_to_those_that_may_talk_to_it(bench: FleetBench) -> None:
    one, alone = bench.worker(1), bench.worker(2, ALONE)
    bench.reserve[3] = record(3)._replace(name="")
    bench.fd_store.reserve(record(3).incarnation)
    for worker in (one, alone):
        worker.send(WantFloods(((3, 3),)))
    given, fds = bench.receive(one)
    assert given == Floods(((3, 3),))
    with pytest.raises(PermissionError):
        mmap.mmap(fds[0], mmap.PAGESIZE)
    assert bench.receive(alone) == (Floods(()), ())
    close_all(fds)

"""What outlives a port's worker, and what a worker is given."""

from __future__ import annotations

import mmap
import os

import pytest

from forwarder import _core
from forwarder.channel import close_all
from forwarder.errors import LocalError
from forwarder.names import LARGE_RING_BYTES, RING_BYTES, Policy, PortRecord
from supervisor.rings.fd_store import FdStore, make_ring
from tests.helpers.core.bell_listener import BellListener
from tests.helpers.descriptors import open_descriptors


def record(port: int, epoch: int | None = None) -> PortRecord:
    return PortRecord(port, epoch or port, port, f"vm-{port}", "bess", Policy())


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
    with BellListener(bell) as listener:
        os.eventfd_write(fd_store.for_worker(record(3).incarnation)[2], 1)
        assert listener.rang()
    fd_store.close()
    os.close(bell)


def test_a_shortage_of_descriptors_is_reported_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(24, "Too many open files")

    fd_store = FdStore()
    before = open_descriptors()
    monkeypatch.setattr(_core, "stats_page_create", fail)
    with pytest.raises(LocalError, match="no descriptors or memory for another port"):
        fd_store.take(1, 0)
    assert open_descriptors() == before
    assert fd_store.get(1) is None


@pytest.mark.parametrize(
    ("source", "destination", "size"),
    [
        ("tap", "tap", LARGE_RING_BYTES),
        ("qemu", "tap", LARGE_RING_BYTES),
        ("qemu", "gateway", LARGE_RING_BYTES),
        ("tap", "qemu", RING_BYTES),
        ("qemu", "vhost", LARGE_RING_BYTES),
    ],
)
def test_a_ring_towards_a_tap_holds_a_window(source: str, destination: str, size: int) -> None:
    ring = make_ring(record(1)._replace(transport=source), record(2)._replace(transport=destination))
    try:
        assert size <= os.fstat(ring.writing).st_size < size + RING_BYTES  # a header goes with it
    finally:
        close_all(ring)


def test_a_reserved_ring_is_written_by_its_worker_and_only_read_by_others() -> None:
    fd_store = FdStore()
    one = record(1).incarnation
    fd_store.reserve(one)
    reading = fd_store.flood(one)
    assert reading is not None
    with pytest.raises(PermissionError):
        mmap.mmap(reading, mmap.PAGESIZE)
    assert fd_store.flood(record(1, 2).incarnation) is None
    fd_store.take(1, os.open("/dev/null", os.O_RDONLY))
    flood = fd_store.for_worker(one)[4]
    assert fd_store.for_worker(one)[4] == flood
    assert fd_store.flood(one) == reading
    assert os.path.samestat(os.fstat(flood), os.fstat(reading))
    fd_store.sealed(1)
    assert fd_store.flood(one) == flood
    fd_store.close()


def test_a_worker_with_another_epoch_gets_another_ring_than_the_reserved_one() -> None:
    before = open_descriptors()
    fd_store = FdStore()
    fd_store.reserve(record(1, 1).incarnation)
    fd_store.take(1, os.open("/dev/null", os.O_RDONLY))
    flood = fd_store.for_worker(record(1, 2).incarnation)[4]
    assert fd_store.flood(record(1, 2).incarnation) == flood
    fd_store.reserve(record(2).incarnation)
    fd_store.close()
    assert open_descriptors() == before

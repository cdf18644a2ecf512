"""A guest's memory as regions, and queues that outlive a worker in it."""

from __future__ import annotations

import os
import struct

import pytest

from forwarder import _core
from tests.helpers.core.guest_world import a_world, start_queues
from tests.helpers.core.mini_switch import BROADCAST, frame, mac
from tests.helpers.guests.virtio_driver import (
    EVENT_IDX,
    FROM_GUEST,
    FRONT_END,
    GUEST,
    MEMORY_BYTES,
    MRG_RXBUF,
    VERSION_1,
)

REGION = (GUEST, MEMORY_BYTES, FRONT_END, 0)


@pytest.mark.parametrize(
    ("region", "what"),
    [
        ((GUEST + MEMORY_BYTES - 1, 4096, 0x1000, 0), "overlap"),
        ((0, GUEST + 1, 0x1000, 0), "overlap"),
        ((0x40000000, 4096, FRONT_END + 4096, 0), "overlap"),
        ((0x40000000, 0, 0x1000, 0), "empty"),
        ((2**64 - 4096, 8192, 0x1000, 0), "beyond"),
        ((0x40000000, 8192, 2**64 - 4096, 0), "beyond"),
        ((0x40000000, 2**63, 0x1000, 0), "beyond"),
        ((0x40000000, 4096, 0x1000, 2**63), "beyond"),
        ((0x40000000, 4096, 0x1000, MEMORY_BYTES - 4095), "file of a region ends"),
        ((0x40000000, MEMORY_BYTES + 1, 0x1000, 0), "file of a region ends"),
    ],
)
def test_a_region_that_makes_no_sense_is_refused(region: tuple[int, int, int, int], what: str) -> None:
    with a_world() as world, pytest.raises(ValueError, match=what):
        world.engine.vhost_add_region(*region, world.driver.fd)


def test_a_region_is_a_regular_file() -> None:
    with a_world() as world:
        pipe = os.pipe()
        for fd in (*pipe, world.driver.queues[0].kick):
            with pytest.raises(ValueError, match="regular file"):
                world.engine.vhost_add_region(0x40000000, 4096, 0x1000, 0, fd)
        for fd in pipe:
            os.close(fd)


def test_regions_have_a_bound() -> None:
    with a_world() as world:
        add = world.engine.vhost_add_region
        for number in range(31):
            add(0x40000000 + number * 4096, 4096, 0x1000 + number * 4096, 0, world.driver.fd)
        with pytest.raises(OSError, match="No space"):
            add(0x50000000, 4096, 0x40000, 0, world.driver.fd)


def test_a_buffer_may_lie_in_two_regions() -> None:
    with a_world() as world:
        world.engine.vhost_remove_region(GUEST, MEMORY_BYTES, FRONT_END)
        half = MEMORY_BYTES // 2
        for at in (half, 0):
            world.engine.vhost_add_region(GUEST + at, half, FRONT_END + at, at, world.driver.fd)
        world.driver._next = half - 20
        sent = frame(BROADCAST, mac(1), bytes(range(100)), 200)
        world.driver.send(sent)
        world.switch.settle()
        assert world.peer.received() == [sent]


def test_a_queue_whose_region_goes_stops_and_comes_back_with_it() -> None:
    with a_world() as world:
        world.introduce()
        world.engine.vhost_remove_region(GUEST, MEMORY_BYTES, FRONT_END)
        sent = frame(BROADCAST, mac(1), b"later")
        world.driver.send(sent)
        world.peer.send(frame(mac(1), mac(2)))
        world.switch.settle()
        assert world.peer.received() == []
        world.engine.vhost_add_region(*REGION, world.driver.fd)
        world.switch.settle()
        assert world.peer.received() == [sent]


def test_queues_outside_of_the_memory_do_not_start() -> None:
    with a_world() as world:
        queue = world.driver.queues[FROM_GUEST]
        base = {
            "descriptors": FRONT_END + queue.descriptors,
            "available": FRONT_END + queue.available,
            "used": FRONT_END + queue.used,
        }
        world.engine.vhost_stop_queue(FROM_GUEST)
        for name in base:
            for address in (0, FRONT_END - 4, FRONT_END + MEMORY_BYTES - 4, 2**64 - 8):
                with pytest.raises(OSError, match="Bad address"):
                    world.engine.vhost_start_queue(
                        which=FROM_GUEST,
                        entries=64,
                        index=0,
                        kick=queue.kick,
                        call=-1,
                        resumed=False,
                        **{**base, name: address},  # type: ignore[arg-type]
                    )


def test_a_kick_that_cannot_be_waited_for_is_refused() -> None:
    with a_world() as world:
        queue = world.driver.queues[FROM_GUEST]
        world.engine.vhost_stop_queue(FROM_GUEST)
        with pytest.raises(PermissionError):
            world.engine.vhost_start_queue(
                which=FROM_GUEST,
                entries=64,
                index=0,
                descriptors=FRONT_END + queue.descriptors,
                available=FRONT_END + queue.available,
                used=FRONT_END + queue.used,
                kick=world.driver.fd,
                call=-1,
                resumed=False,
            )


def test_the_next_worker_goes_on_where_the_last_one_stopped() -> None:
    with a_world() as world:
        world.driver.post(30)
        world.introduce()
        sent, received = [], []
        for number in range(6):
            out = frame(mac(2), mac(1), b"out" + bytes([number]))
            back = frame(mac(1), mac(2), b"back" + bytes([number]))
            sent += [out, back]
            world.driver.send(out)
            world.peer.send(back)
            if number == 3:
                world.switch.restart(1)
                start_queues(world.engine, world.driver, resumed=True)
            world.switch.settle()
            received += [*world.peer.received(), *world.driver.frames()]
        # Of each number one frame either way; the burst that waits when the worker goes is taken by the next.
        assert sorted(received) == sorted(sent)


@pytest.mark.parametrize(("says", "goes_on"), [(3, 3), (2, 2), (9999, 2)])
def test_a_worker_believes_only_possible_indices_of_a_guest(says: int, goes_on: int) -> None:
    """The last burst went from 2 to 3: any other index in memory was not written by a worker."""
    with a_world() as world:
        for number in range(3):
            world.driver.send(frame(BROADCAST, mac(1), bytes([number])))
            world.switch.settle()
        queue = world.driver.queues[FROM_GUEST]
        struct.pack_into("<H", world.driver.memory, queue.used + 2, says)
        world.switch.restart(1)
        start_queues(world.engine, world.driver, resumed=True)
        assert world.engine.vhost_stop_queue(FROM_GUEST) == goes_on


def test_a_lost_call_is_made_up_for() -> None:
    with a_world(VERSION_1 | MRG_RXBUF | EVENT_IDX) as world:
        world.driver.post(4)
        world.introduce()
        for queue in world.driver.queues:
            queue.calls()
        world.switch.restart(1)
        start_queues(world.engine, world.driver, resumed=True)
        world.switch.settle()
        assert [queue.calls() for queue in world.driver.queues] == [1, 1]


def test_a_guest_that_shrinks_its_memory_ends_its_own_worker_alone() -> None:
    with a_world() as world:
        world.driver.post(4)
        world.introduce()
        child = os.fork()
        if child == 0:
            os.ftruncate(world.driver.fd, 0)
            world.switch.engines[1].run(0)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert _core.StatsPage(world.switch.stats[1]).memory_gone()

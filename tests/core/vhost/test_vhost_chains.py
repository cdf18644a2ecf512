"""Every way to get a descriptor, a head or an index wrong: what breaks a frame costs that frame."""

from __future__ import annotations

import pytest

from forwarder import _core
from tests.helpers.core.guest_world import World, a_world
from tests.helpers.core.mini_switch import BROADCAST, frame, mac
from tests.helpers.guests.virtio_driver import (
    DESCRIPTOR,
    FROM_GUEST,
    GUEST,
    INDIRECT,
    MEMORY_BYTES,
    NEXT,
    TO_GUEST,
    WRITE,
)


def _describe(world: World, *descriptors: tuple[int, int, int, int]) -> None:
    queue = world.driver.queues[FROM_GUEST]
    for index, (address, size, flags, following) in enumerate(descriptors):
        queue.describe(index, address, size, flags, following)
    queue.offer(0)


GOOD = GUEST + 0x30000


@pytest.mark.parametrize(
    ("descriptors", "counter"),
    [
        pytest.param([(0, 100, 0, 0)], "runt", id="address before the memory"),
        pytest.param([(GUEST + MEMORY_BYTES, 100, 0, 0)], "runt", id="address behind the memory"),
        pytest.param([(GUEST + MEMORY_BYTES - 50, 100, 0, 0)], "runt", id="end behind the memory"),
        pytest.param([(2**64 - 50, 100, 0, 0)], "runt", id="address that wraps"),
        pytest.param([(GOOD, 2**32 - 1, 0, 0)], "runt", id="length that wraps"),
        pytest.param([(GOOD, 100, WRITE, 0)], "runt", id="to be written"),
        pytest.param([(GOOD, 12, NEXT, 1), (GOOD, 100, WRITE, 0)], "runt", id="second to be written"),
        pytest.param([(GOOD, 12, NEXT, 64)], "runt", id="next behind the table"),
        pytest.param([(GOOD, 12, NEXT, 0)], "runt", id="loop"),
        pytest.param([(GOOD, 0, 0, 0)], "runt", id="nothing"),
        pytest.param([(GOOD, 11, 0, 0)], "runt", id="half a header"),
        pytest.param([(GOOD, 12, 0, 0)], "runt", id="a header alone"),
        pytest.param([(GOOD, 25, 0, 0)], "runt", id="a frame of 13 bytes"),
        pytest.param([(GOOD, 70_000, 0, 0)], "oversize", id="too long"),
        pytest.param([(GOOD, 65_000, NEXT, 1), (GOOD, 65_000, 0, 0)], "oversize", id="too long in two"),
        pytest.param([(GOOD, 17, INDIRECT, 0)], "runt", id="table of a part"),
        pytest.param([(GOOD, 0, INDIRECT, 0)], "runt", id="table of nothing"),
        pytest.param([(GOOD, 16 * 2048, INDIRECT, 0)], "runt", id="table of too many"),
        pytest.param([(GOOD, 16, INDIRECT | NEXT, 1)], "runt", id="table with a next"),
        pytest.param([(GUEST + MEMORY_BYTES - 16, 32, INDIRECT, 0)], "runt", id="table behind the memory"),
        pytest.param([(8, 16, INDIRECT, 0)], "runt", id="table before the memory"),
    ],
)
def test_a_chain_that_makes_no_sense_costs_its_frame(
    descriptors: list[tuple[int, int, int, int]], counter: str
) -> None:
    with a_world() as world:
        _describe(world, *descriptors)
        world.switch.settle()
        assert world.peer.received() == []
        assert world.counters()[counter] == 1
        assert world.driver.reclaim() == [(0, 0)]
        good = frame(BROADCAST, mac(1), b"good")
        world.driver.send(good)
        world.switch.settle()
        assert world.peer.received() == [good]
        assert world.engine.link_error == ""


def test_a_table_that_is_the_queue_itself_costs_its_frame() -> None:
    """Only this frame is lost; following the table would never end."""
    with a_world() as world:
        _describe(world, (GUEST + world.driver.queues[FROM_GUEST].descriptors, 16, INDIRECT, 0))
        world.switch.settle()
        assert world.counters()["runt"] == 1


def test_a_table_in_a_table_costs_its_frame() -> None:
    with a_world() as world:
        DESCRIPTOR.pack_into(world.driver.memory, 0x30000, GOOD, 16, INDIRECT, 0)
        _describe(world, (GOOD, 16, INDIRECT, 0))
        world.switch.settle()
        assert world.counters()["runt"] == 1


@pytest.mark.parametrize("which", [TO_GUEST, FROM_GUEST])
@pytest.mark.parametrize("index", [65, 1000, 65535])
def test_an_index_that_runs_away_ends_the_link(which: int, index: int) -> None:
    with a_world() as world:
        world.introduce()
        queue = world.driver.queues[which]
        queue.set_index(queue.index + index & 0xFFFF)
        world.peer.send(frame(mac(1), mac(2)), frame(BROADCAST, mac(2)))
        world.switch.settle()
        assert world.engine.run(0) & _core.EVENT_LINK_DOWN
        assert "makes no sense" in world.engine.link_error


def test_a_head_behind_the_table_ends_the_link() -> None:
    with a_world() as world:
        world.driver.queues[FROM_GUEST].offer(64)
        world.switch.settle()
        assert world.engine.run(0) & _core.EVENT_LINK_DOWN
        assert "frames that it sends" in world.engine.link_error


@pytest.mark.parametrize(
    "descriptor",
    [
        pytest.param((GOOD, 2000, 0, 0), id="only to be read"),
        pytest.param((0, 2000, WRITE, 0), id="outside"),
        pytest.param((GOOD, 2000, WRITE | NEXT, 0), id="loop"),
    ],
)
def test_a_buffer_that_makes_no_sense_is_skipped(descriptor: tuple[int, int, int, int]) -> None:
    with a_world() as world:
        world.introduce()
        queue = world.driver.queues[TO_GUEST]
        queue.free.remove(7)
        queue.describe(7, *descriptor)
        queue.offer(7)
        world.driver._chains[1 << 16 | 7] = [(7, 0, 0)]
        world.driver.post(2)
        sent = frame(mac(1), mac(2), b"after it")
        world.peer.send(sent)
        world.switch.settle()
        assert sent in world.driver.frames()


@pytest.mark.parametrize("size", [100, 3000])
def test_buffers_of_no_bytes_are_returned_and_hold_nothing(size: int) -> None:
    with a_world() as world:
        world.driver.post(1)
        world.introduce()
        queue = world.driver.queues[TO_GUEST]
        before = len(queue.free)
        world.driver.post(1, size=0)
        world.driver.post(1, parts=(0, 0))
        world.driver.post(1)
        world.driver.post(1, size=0)
        world.driver.post(2)
        sent = [frame(mac(1), mac(2), bytes((number,)), size) for number in range(2 if size < 2000 else 1)]
        world.peer.send(*sent)
        world.switch.settle()
        assert world.driver.frames() == sent
        assert len(queue.free) == before - 1, "all but the last buffer came back"


def test_a_frame_that_waits_for_a_second_buffer_is_refused_in_the_end() -> None:
    """Otherwise a driver that never posts enough buffers would get no more frames."""
    with a_world() as world:
        world.driver.post(2, size=100)
        world.introduce()
        long, short = frame(mac(1), mac(2), b"long", 3000), frame(mac(1), mac(2), b"short", 60)
        world.driver.post(5, size=100)
        world.peer.send(long, short)
        received: list[bytes] = []
        for _ in range(2000):
            world.switch.turn()
            world.engine.run(0.001)
            received += world.driver.frames()
            if received:
                break
        assert received == [short]
        assert world.counters()["refused"] == 1

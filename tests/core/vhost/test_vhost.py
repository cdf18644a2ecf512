"""A guest's queues as an engine uses them: frames both ways, buffers, kicks and calls."""

from __future__ import annotations

import contextlib
import os
import struct

import pytest

from forwarder import _core
from tests.helpers.core.guest_world import a_world, start_queues
from tests.helpers.core.mini_switch import BROADCAST, frame, mac
from tests.helpers.core.model_segments import TCP, UDP, Flow
from tests.helpers.core.tap import towards
from tests.helpers.guests.virtio_driver import (
    EVENT_IDX,
    FROM_GUEST,
    MRG_RXBUF,
    PLAIN,
    TO_GUEST,
    VERSION_1,
    Driver,
)

FORMS = [
    pytest.param(0, id="legacy"),
    pytest.param(VERSION_1, id="modern"),
    pytest.param(MRG_RXBUF, id="legacy mergeable"),
    pytest.param(VERSION_1 | MRG_RXBUF | EVENT_IDX, id="mergeable with event indices"),
]


@pytest.mark.parametrize("features", FORMS)
@pytest.mark.parametrize("size", [14, 60, 1514, 4000])
def test_frames_pass_both_ways(features: int, size: int) -> None:
    with a_world(features) as world:
        world.driver.post(8, size=8192)
        world.introduce()
        out = frame(mac(2), mac(1), bytes(range(40))[: size - 14], size)
        back = frame(mac(1), mac(2), b"back", size)[: max(size, 18)]
        world.driver.send(out)
        world.peer.send(back)
        world.switch.settle()
        assert world.peer.received() == [out]
        assert world.driver.receive() == [
            (bytes(10) + b"\1\0" if world.driver.header_bytes == 12 else bytes(10), back)
        ]
        assert world.counters()["rx_frames"] == 2
        assert world.counters()["tx_frames"] == 2


@pytest.mark.parametrize("parts", [(1,), (12,), (10,), (5, 5, 5), (12, 14), (12, 1, 1, 1, 1, 1)])
def test_a_frame_may_lie_in_any_pieces(parts: tuple[int, ...]) -> None:
    with a_world() as world:
        out = frame(BROADCAST, mac(1), bytes(range(200)), 300)
        world.driver.send(out, parts=parts)
        data = PLAIN + b"\0\0" + out
        world.driver.send_indirect([data[:7], data[7:100], b"", data[100:]])
        world.switch.settle()
        assert world.peer.received() == [out, out]
        assert [size for _, size in world.driver.reclaim()] == [0, 0]


@pytest.mark.parametrize("buffers", [(1600, 1), (700, 4), (6000, 1)])
def test_a_frame_to_the_guest_takes_as_many_buffers_as_it_needs(buffers: tuple[int, int]) -> None:
    size, _ = buffers
    with a_world() as world:
        world.driver.post(20, size=size)
        world.introduce()
        frames = [frame(mac(1), mac(2), bytes([n]) * 100, 1400 + n) for n in range(3)]
        world.peer.send(*frames)
        world.switch.settle()
        received = world.driver.receive()
        assert [each for _, each in received] == frames
        for header, each in received:
            assert struct.unpack_from("<H", header, 10)[0] == -(-(len(each) + 12) // size)


def test_without_mergeable_buffers_a_frame_that_does_not_fit_is_refused_alone() -> None:
    with a_world(VERSION_1) as world:
        world.driver.post(4, size=1000)
        world.introduce()
        long, short = frame(mac(1), mac(2), b"long", 1200), frame(mac(1), mac(2), b"short", 300)
        world.peer.send(long, short)
        world.switch.settle()
        assert world.driver.frames() == [short]
        assert world.counters()["refused"] == 1


def test_frames_wait_for_buffers_and_are_lost_at_the_tail() -> None:
    with a_world() as world:
        world.driver.post(1)
        world.introduce()
        sent = [frame(mac(1), mac(2), n.to_bytes(4, "big"), 1000) for n in range(5)]
        world.peer.send(*sent)
        world.switch.settle()
        assert world.driver.frames() == []
        assert world.counters()["eagain"] >= 1
        world.driver.post(5)
        world.driver.queues[TO_GUEST].kicks()
        world.switch.settle()
        assert world.driver.frames() == sent


def test_frames_for_a_driver_that_is_not_there_are_refused() -> None:
    with a_world() as world:
        world.driver.post(3)
        world.introduce()
        world.engine.vhost_stop_queue(TO_GUEST)
        world.peer.send(frame(mac(1), mac(2)))
        world.switch.settle()
        assert world.counters()["refused"] == 1
        assert world.driver.frames() == []


def test_a_driver_is_called_once_a_turn_at_the_most() -> None:
    with a_world() as world:
        world.driver.post(40)
        world.introduce()
        world.driver.queues[TO_GUEST].calls()
        before = world.counters()["turns"]
        world.peer.send(*[frame(mac(1), mac(2), bytes([n])) for n in range(30)])
        world.switch.settle()
        assert len(world.driver.frames()) == 30
        assert 1 <= world.driver.queues[TO_GUEST].calls() <= world.counters()["turns"] - before


def test_a_driver_that_wants_no_call_gets_none() -> None:
    with a_world() as world:
        world.driver.post(40)
        world.introduce()
        queue = world.driver.queues[TO_GUEST]
        struct.pack_into("<H", world.driver.memory, queue.available, 1)
        queue.calls()
        world.peer.send(frame(mac(1), mac(2)))
        world.switch.settle()
        assert len(world.driver.frames()) == 1
        assert queue.calls() == 0


def test_an_event_index_asks_for_the_call_after_a_certain_buffer() -> None:
    with a_world(VERSION_1 | MRG_RXBUF | EVENT_IDX) as world:
        world.driver.post(40)
        queue = world.driver.queues[TO_GUEST]
        world.introduce()
        event = queue.available + 4 + 2 * queue.entries
        for number, called in ((queue.used_index() + 1, [0, 1, 0]), (queue.used_index(), [0, 0, 0])):
            struct.pack_into("<H", world.driver.memory, event, number)
            queue.calls()
            got = []
            for _ in range(3):
                world.peer.send(frame(mac(1), mac(2)))
                world.switch.settle()
                got.append(queue.calls())
            assert got == called, number


def test_an_idle_engine_asks_for_kicks_and_one_at_work_does_not() -> None:
    with a_world() as world:
        world.introduce()
        queue = world.driver.queues[FROM_GUEST]
        world.engine.run(0.05)
        assert not queue.wants_kick(0)  # awake again: run has returned
        world.driver.send(frame(BROADCAST, mac(1)))
        queue.kicks()
        world.engine.run(0.05)
        world.switch.settle()
        assert len(world.peer.received()) == 1


CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, HOST_TSO6 = 1 << 0, 1 << 1, 1 << 7, 1 << 11, 1 << 12
HOST_USO = 1 << 56


def _large(segment: int = 1000, count: int = 4) -> tuple[bytes, bytes]:
    """Header and frame of TCP over IPv4 that is to be cut."""
    payload = bytes(range(256)) * (segment * count // 256 + 1)
    payload = payload[: segment * count]
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0, 0x0A000001, 0x0A000002)
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 5, 0, 0)
    header = struct.pack("<BBHHHH", 1, 1, 54, segment, 34, 16)
    return header, mac(2) + mac(1) + b"\x08\x00" + ip + tcp + payload


@pytest.mark.parametrize("takes", [0, GUEST_CSUM, GUEST_CSUM | GUEST_TSO4])
def test_a_guests_intake_follows_its_drivers_features(takes: int) -> None:
    """The other guest's driver changes its features: frames come large, without checksum, or finished."""
    base = VERSION_1 | MRG_RXBUF
    with a_world(base | CSUM | HOST_TSO4) as world, contextlib.closing(Driver(base | takes)) as other:
        world.switch.attach(3, "vhost", os.eventfd(0))
        start_queues(world.switch.engines[3], other)
        other.post(30)
        other.send(frame(BROADCAST, mac(2)))
        world.switch.settle()
        world.driver.send(frame(mac(2), mac(1)))  # frames that wait for a ring are always finished
        world.switch.settle()
        header, large = _large()
        for word in (takes, 0, GUEST_CSUM | GUEST_TSO4):
            other.features = base | word
            world.switch.engines[3].vhost_set_features(base | word)
            other.receive()
            world.driver.send(large, header)
            world.switch.settle()
            came = other.receive()
            if word & GUEST_TSO4:
                assert [(each[:10], each_frame) for each, each_frame in came] == [(header, large)]
            else:
                assert [len(each) for _, each in came] == [1054] * 4
                assert all(each[:10] == PLAIN for each, _ in came)
            other.post(30 - (other.queues[TO_GUEST].index - other.queues[TO_GUEST].used_index() & 0xFFFF))
        assert world.switch.counters(3)["refused"] == 0


def test_a_header_with_an_offload_that_was_not_negotiated_costs_its_frame() -> None:
    with a_world(VERSION_1 | MRG_RXBUF | CSUM) as world:
        world.introduce()
        header, large = _large()
        world.driver.send(large, header)
        world.switch.settle()
        assert world.counters()["offload"] == 1
        assert world.peer.received() == []


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("ipv6", [False, True])
def test_a_vm_that_accepts_large_frames_gets_no_two_datagrams_as_one(protocol: int, *, ipv6: bool) -> None:
    with a_world(VERSION_1 | MRG_RXBUF | CSUM | HOST_TSO4 | HOST_TSO6 | HOST_USO) as world:
        world.introduce()
        world.switch.engines[2].take(_core.TAKES_LARGE, _core.LARGEST_FRAME)
        world.driver.send(frame(mac(2), mac(1)))  # asks for the ring
        world.switch.settle()
        world.peer.received()
        flow = towards(2, Flow(b"d" * 4000, 1000, protocol=protocol, ipv6=ipv6))
        whole = flow.unfinished()
        world.driver.send(whole[len(PLAIN) :], whole[: len(PLAIN)])
        world.switch.settle()
        expected = flow if protocol == UDP else flow._replace(mss=len(flow.payload))
        assert world.peer.received() == expected.finished()


def test_an_mtu_holds_for_a_guest_whatever_its_driver_takes() -> None:
    with a_world(VERSION_1 | MRG_RXBUF | GUEST_CSUM | GUEST_TSO4) as world:
        world.driver.post(8)
        world.introduce()
        world.engine.limit(1518)
        world.peer.send(frame(mac(1), mac(2), b"", 1600), frame(mac(1), mac(2), b"", 1500))
        world.switch.settle()
        assert [len(each) for each in world.driver.frames()] == [1500]
        assert world.counters()["refused"] == 1
        with pytest.raises(ValueError, match="inferred"):
            world.engine.infer(1500)


def test_frames_under_way_are_refused_when_a_driver_accepts_less() -> None:
    base = VERSION_1 | MRG_RXBUF
    with (
        a_world(base | CSUM | HOST_TSO4) as world,
        contextlib.closing(Driver(base | GUEST_CSUM | GUEST_TSO4)) as other,
    ):
        world.switch.attach(3, "vhost", os.eventfd(0))
        start_queues(world.switch.engines[3], other)
        other.post(30)
        other.send(frame(BROADCAST, mac(2)))
        world.switch.settle()
        world.driver.send(frame(mac(2), mac(1)))
        world.switch.settle()
        other.receive()
        header, large = _large()
        world.driver.send(large, header)
        world.driver.send(frame(mac(2), mac(1), b"after it"))
        world.engine.run(0)
        world.switch.engines[3].vhost_set_features(base | GUEST_CSUM)
        world.switch.settle()
        assert [each[14:22] for each in other.frames()] == [b"after it"]
        assert world.switch.counters(3)["refused"] == 1

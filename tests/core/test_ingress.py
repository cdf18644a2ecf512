"""Inhale: from the bytes that a VM sends to frames, and what becomes of a VM that sends something else."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder import _core
from tests.helpers.core.mini_switch import (
    BROADCAST,
    FLOOD_BYTES,
    KINDS,
    LENGTHS,
    LONGEST,
    MiniSwitch,
    frame,
    mac,
    record,
)

SIZES = (14, 42, 60, 1514, 9014, 65535, 65550, 69632)
WORD = frame(BROADCAST, mac(9), b"a word")


def link_down(switch: MiniSwitch, port: int) -> str:
    """Why the link is down, empty if it is not."""
    down = switch.engines[port].run(0) & _core.EVENT_LINK_DOWN
    assert bool(down) == bool(switch.engines[port].link_error)
    return switch.engines[port].link_error


def assert_goes_on(switch: MiniSwitch, *ports: int) -> None:
    """These ports still forward."""
    switch.settle()
    for port in ports:
        switch.vms[port].received()
    for port in ports:
        switch.vms[port].send(WORD)
        switch.settle()
        for other in ports:
            assert switch.vms[other].received() == ([] if other == port else [WORD])


@pytest.mark.parametrize("receiver", KINDS)
@pytest.mark.parametrize("sender", KINDS)
def test_frames_of_every_length_between_all_kinds(sender: str, receiver: str) -> None:
    with MiniSwitch() as switch:
        one, two = switch.add(1, sender), switch.add(2, receiver)
        sizes = [size for size in SIZES if size <= min(LONGEST[sender], LONGEST[receiver])]
        for size in sizes:
            flooded = frame(BROADCAST, mac(1), os.urandom(size), size)[:size]
            one.send(flooded)
            switch.settle()
            assert two.received() == [flooded]
        two.send(frame(mac(1), mac(2)))
        switch.settle()
        one.received()
        for size in sizes:
            alone = frame(mac(2), mac(1), os.urandom(size), size)[:size]
            one.send(alone)
            switch.settle()
            assert two.received() == [alone]
        assert switch.counters(1)["flooded"] == len(sizes)
        assert switch.counters(1)["rx_bytes"] == switch.counters(2)["tx_bytes"] == 2 * sum(sizes)


@settings(max_examples=40)
@given(
    kind=st.sampled_from(tuple(LENGTHS)),
    sizes=st.lists(st.sampled_from((14, 15, 60, 1514, 65535, 65550)), min_size=1, max_size=6),
    cuts=st.lists(st.floats(0, 1), max_size=12),
)
def test_stream_may_be_cut_anywhere(kind: str, sizes: list[int], cuts: list[float]) -> None:
    sizes = [min(size, LONGEST[kind]) for size in sizes]
    frames = [frame(BROADCAST, mac(1), bytes((n,)) * 8, size)[:size] for n, size in enumerate(sizes)]
    data = b"".join(record(each, kind) for each in frames)
    ends = sorted({0, len(data), *(int(cut * len(data)) for cut in cuts)})
    with MiniSwitch() as switch:
        one, two = switch.add(1, kind), switch.add(2, "stream")
        for start, end in itertools.pairwise(ends):
            one.sock.sendall(data[start:end])
            switch.engines[1].run(0)
        switch.settle()
        assert two.received() == frames


@pytest.mark.parametrize("kind", LENGTHS)
def test_stream_byte_by_byte(kind: str) -> None:
    frames = [frame(BROADCAST, mac(1), bytes((n,)), 14 + n)[: 14 + n] for n in range(20)]
    with MiniSwitch() as switch:
        one, two = switch.add(1, kind), switch.add(2, "dgram")
        for byte in b"".join(record(each, kind) for each in frames):
            one.sock.send(bytes((byte,)))
            switch.engines[1].run(0)
        switch.settle()
        assert two.received() == frames
        assert switch.counters(1)["rx_frames"] == len(frames)


@pytest.mark.parametrize("kind", LENGTHS)
def test_stream_of_more_than_any_buffer(kind: str) -> None:
    """The input buffer is used to its end and its remainder moved to the front, many times."""
    with MiniSwitch() as switch:
        one, two = switch.add(1, kind), switch.add(2, "stream")
        data = bytearray()
        sent = []
        for number in range(600):
            size = min(LONGEST[kind], (60, 65550, 1514, 9014, 14, 30_001)[number % 6])
            sent.append(frame(BROADCAST, mac(1), number.to_bytes(4, "big"), size)[:size])
            data += record(sent[-1], kind)
        got = []
        while data:
            del data[: one.sock.send(data[:200_001])]
            switch.settle()
            got += two.received()
        assert got == sent


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        *(("stream", length) for length in (0, 1, 13, 69633, 2**31, 2**32 - 1)),
        *(("stream16", length) for length in (0, 1, 13)),
    ],
)
def test_bad_length_closes_a_stream_and_nothing_else(kind: str, length: int) -> None:
    with MiniSwitch() as switch:
        for port in (1, 2, 3):
            switch.add(port, kind)
        good = frame(BROADCAST, mac(1), b"good")
        whole = record(good, kind)
        switch.vms[1].sock.send(whole + LENGTHS[kind].pack(length) + bytes(100) + whole)
        switch.settle()
        reason, said = ("runt", "below 14") if length < 14 else ("oversize", "above the limit")
        assert link_down(switch, 1) == f"the VM sent a length {said}"
        assert [switch.counters(1)[each] for each in ("runt", "oversize", "rx_frames")] == [
            int(reason == "runt"),
            int(reason == "oversize"),
            1,
        ]
        assert switch.vms[2].received() == switch.vms[3].received() == [good]
        assert_goes_on(switch, 2, 3)


@pytest.mark.parametrize("kind", ["seqpacket", "dgram"])
def test_bad_datagrams_are_dropped_and_counted(kind: str) -> None:
    with MiniSwitch() as switch:
        one, two = switch.add(1, kind), switch.add(2, kind)
        good = frame(BROADCAST, mac(1))
        one.send(b"", good, b"x", bytes(13), good, bytes(69633), bytes(80_000), b"", good)
        switch.settle()
        assert link_down(switch, 1) == ""
        assert two.received() == [good] * 3
        counters = switch.counters(1)
        assert (counters["runt"], counters["oversize"], counters["rx_frames"]) == (4, 2, 9)
        assert_goes_on(switch, 1, 2)


@pytest.mark.parametrize("kind", [*LENGTHS, "seqpacket"])
def test_vm_that_leaves_is_noticed_after_its_last_frame(kind: str) -> None:
    with MiniSwitch() as switch:
        for port in (1, 2, 3):
            switch.add(port, kind)
        last = [frame(BROADCAST, mac(1), bytes((n,))) for n in range(50)]
        switch.vms[1].send(*last)
        switch.vms[1].sock.close()
        switch.settle()
        assert link_down(switch, 1) == "the VM closed the link"
        assert switch.vms[2].received() == switch.vms[3].received() == last
        assert switch.counters(1)["runt"] == 0
        assert_goes_on(switch, 2, 3)


def test_empty_message_is_not_taken_for_the_end() -> None:
    """On seqpacket, an empty message and the end both read as no bytes; frames may follow the message."""
    with MiniSwitch() as switch:
        one, two = switch.add(1, "seqpacket"), switch.add(2, "seqpacket")
        good = frame(BROADCAST, mac(1))
        one.send(b"", good, b"", good)
        one.sock.close()
        switch.settle()
        assert two.received() == [good, good]
        assert link_down(switch, 1) == "the VM closed the link"


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("bytes_of_it", [1, 2, 700])
def test_half_a_frame_and_gone(kind: str, bytes_of_it: int) -> None:
    with MiniSwitch() as switch:
        for port in (1, 2, 3):
            switch.add(port, kind)
        whole, half = frame(BROADCAST, mac(1)), frame(BROADCAST, mac(1), size=1514)
        switch.vms[1].sock.send(record(whole, kind) + record(half, kind)[:bytes_of_it])
        switch.settle()
        assert link_down(switch, 1) == ""
        switch.vms[1].sock.close()
        switch.settle()
        assert link_down(switch, 1) == "the VM closed the link"
        assert switch.vms[2].received() == [whole]
        assert_goes_on(switch, 2, 3)


def test_datagram_vm_that_is_gone_is_noticed_at_the_next_write() -> None:
    """The death of such a VM gives no event: until a frame is sent to it, the engine must not spin."""
    with MiniSwitch() as switch:
        for port in (1, 2, 3):
            switch.add(port, "dgram")
        switch.vms[1].sock.close()
        switch.settle()
        assert link_down(switch, 1) == ""
        before = switch.counters(1)["turns"]
        switch.engines[1].run(0.05)
        assert switch.counters(1)["turns"] - before < 5
        switch.vms[2].send(frame(BROADCAST, mac(2)))
        switch.settle()
        assert link_down(switch, 1) == "writing to the VM: Connection refused"
        assert_goes_on(switch, 2, 3)


def test_a_flooding_vm_is_still_served_by_its_worker() -> None:
    with MiniSwitch() as switch:
        loud, other = switch.add(1, "stream"), switch.add(2, "stream")
        other.send(WORD)
        switch.engines[2].run(0)
        loud.sock.send(record(frame(mac(2), mac(1), size=1514)) * 400)
        switch.engines[1].run(0)
        assert loud.received() == [WORD]
        assert 0 < switch.counters(1)["rx_frames"] < 400


def test_frames_wait_in_order_until_the_ring_is_there() -> None:
    with MiniSwitch() as switch:
        one, two = switch.add(1, "stream"), switch.add(2, "stream")
        two.send(frame(BROADCAST, mac(2)))
        switch.settle()
        one.received()
        switch.rings_given = False
        frames = [frame(mac(2), mac(1), bytes((n,))) for n in range(30)]
        one.send(*frames[:10])
        assert switch.engines[1].run(0) & _core.EVENT_WANTED
        assert switch.engines[1].wanted() == [2]
        assert switch.engines[1].wanted() == []
        one.send(*frames[10:20])
        switch.settle()
        assert two.received() == []
        switch.connect(1, 2)
        one.send(*frames[20:])
        switch.settle()
        assert two.received() == frames
        assert switch.counters(1)["flooded"] == 0


def test_pen_is_bounded_and_its_frames_are_flooded_when_no_ring_comes() -> None:
    with MiniSwitch() as switch:
        one, two, three = (switch.add(port, "stream") for port in (1, 2, 3))
        two.send(frame(BROADCAST, mac(2)))
        switch.settle()
        three.received()
        switch.rings_given = False
        frames = [frame(mac(2), mac(1), bytes((n,)), 9014) for n in range(50)]
        for each in frames:
            one.send(each)
            switch.settle()
        lost = switch.lost_towards(2)
        assert 0 < lost < 50
        switch.engines[1].give_up_ring(2)
        switch.settle()
        kept = frames[: 50 - lost]
        assert two.received() == three.received() == kept
        one.send(frame(mac(2), mac(1), b"flooded"))
        switch.settle()
        assert two.received() == [frame(mac(2), mac(1), b"flooded")]
        switch.connect(1, 2)
        one.send(frame(mac(2), mac(1), b"by the ring"))
        switch.settle()
        assert two.received() == [frame(mac(2), mac(1), b"by the ring")]
        assert three.received() == [frame(mac(2), mac(1), b"flooded")]


def test_engine_that_cannot_start_leaves_the_counters_alone() -> None:
    """The counters belong to the port: a worker that fails to take them over must not clear them."""
    with MiniSwitch() as switch:
        switch.add(1, "stream").send(WORD)
        switch.add(2, "stream")
        switch.settle()
        switch.engines[1].close()
        stale = _core.flood_create(FLOOD_BYTES, 1, 77)
        try:
            with pytest.raises(OSError, match="Stale"):
                _core.Engine(
                    port=1,
                    epoch=78,
                    kind="stream",
                    vm=switch.vms[1].sock.fileno(),
                    doorbell=switch.bells[1],
                    flood_doorbell=switch.flood_bell,
                    stats=switch.stats[1],
                    flood=stale,
                )
        finally:
            os.close(stale)
        assert switch.counters(1)["rx_frames"] == 1


def test_closed_engine_refuses_everything() -> None:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        engine = switch.engines[1]
        engine.close()
        engine.close()
        for call in (lambda: engine.run(0), engine.wanted, engine.progress, lambda: engine.peer_leave(2)):
            with pytest.raises(ValueError, match="closed"):
                call()


def test_broadcast_and_multicast_have_a_rate_each() -> None:
    multicast = bytes.fromhex("01005e000001")
    for limits, kept in (({"broadcast": 1}, multicast), ({"multicast": 1}, BROADCAST)):
        with MiniSwitch() as switch:
            sender, receiver = switch.add(1, "stream"), switch.add(2, "stream")
            switch.engines[1].set_limits(
                **{"broadcast": 0, "multicast": 0, "unknown": 0, "bytes": 0, "macs": 0} | limits
            )
            for _ in range(50):
                sender.send(frame(BROADCAST, mac(1)), frame(multicast, mac(1)))
            switch.settle()
            got = receiver.received()
            assert [each[:6] for each in got].count(kept) == 50
            assert switch.counters(1)["storm"] == 100 - len(got) > 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_vm_that_is_held_is_neither_read_nor_noticed(kind: str) -> None:
    with MiniSwitch() as switch:
        vm = switch.add(1, kind)
        switch.engines[1].hold(True)
        vm.send(frame(BROADCAST, mac(1)))
        switch.settle()
        assert switch.counters(1)["rx_frames"] == 0
        switch.engines[1].hold(False)
        switch.settle()
        assert switch.counters(1)["rx_frames"] == 1
        switch.engines[1].hold(True)
        vm.sock.close()
        switch.settle()
        assert switch.engines[1].link_error == ""

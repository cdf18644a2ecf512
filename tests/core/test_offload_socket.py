"""VMs on sockets that leave checksums and segments undone: what becomes of their frames in a switch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder import _core
from tests.helpers.core.mini_switch import BROADCAST, KINDS, LENGTHS, MiniSwitch, Vm, frame, mac, record
from tests.helpers.core.model_segments import UDP, Flow
from tests.helpers.core.tap import FLOWS, Tap, towards
from tests.helpers.guests.netns import Namespace

HEADER = 10
MTU = 1500
SENT = {name: flow for name, flow in FLOWS.items() if flow.protocol != UDP}
SENT["TCP/IPv4 in a VLAN"] = SENT["TCP/IPv4 in a VLAN"]._replace(mss=1460)
SENT["UDP/IPv4"] = Flow(b"question", 1472, protocol=UDP)
SENT["UDP/IPv6"] = Flow(b"question", 1452, protocol=UDP, ipv6=True)
SENT["finished"] = Flow(b"g" * 1000, 1448)


def bare(flow: Flow) -> bytes:
    """The flow's frame as it comes through a socket."""
    return flow.unfinished()[HEADER:]


class Pair:
    """Port 1 has offloads, port 2 has none."""

    def __init__(self, switch: MiniSwitch, kind: str, other: str) -> None:
        self.switch = switch
        self.one = switch.add(1, kind)
        self.two = switch.add(2, other)
        switch.engines[1].infer(MTU)
        for port, vm in switch.vms.items():
            vm.send(frame(BROADCAST, mac(port)))
            switch.settle()
        self.one.send(frame(mac(2), mac(1)))  # asks for the ring
        self.received()
        switch.read_out(self.one)

    def received(self) -> list[bytes]:
        return self.switch.read_out(self.two)


@pytest.fixture
def switch() -> Iterator[MiniSwitch]:
    with MiniSwitch() as made:
        yield made


@pytest.mark.parametrize("name", SENT)
@pytest.mark.parametrize("kind", KINDS)
def test_unfinished_frames_are_finished(switch: MiniSwitch, kind: str, name: str) -> None:
    pair = Pair(switch, kind, "stream")
    flow = towards(2, SENT[name])
    for whole in [*flow.finished()] if name == "finished" else [bare(flow)]:
        pair.one.send(whole)
    assert pair.received() == flow.finished()
    counters = switch.counters(1)
    assert counters["offload"] == counters["oversize"] == 0
    assert counters["rx_bytes"] == 2 * 60 + len(bare(flow))


@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("destination", [BROADCAST, mac(9)], ids=["group", "unknown"])
def test_flooded_frames_are_finished(switch: MiniSwitch, other: str, destination: bytes) -> None:
    pair = Pair(switch, "dgram", other)
    flow = FLOWS["TCP/IPv4"]._replace(destination=destination, source=mac(1))
    pair.one.send(bare(flow))
    assert pair.received() == flow.finished()


@pytest.mark.parametrize("kind", KINDS)
def test_two_vms_of_that_kind_get_finished_frames_of_their_mtu(switch: MiniSwitch, kind: str) -> None:
    pair = Pair(switch, kind, kind)
    switch.engines[2].infer(MTU)
    for other_takes, longest in ((0, MTU + _core.LINK_BYTES), (_core.TAKES_LARGE, _core.LARGEST_FRAME)):
        switch.engines[2].take(other_takes, longest)
        flow = towards(2, FLOWS["TCP/IPv6"])
        pair.one.send(bare(flow))
        whole = flow._replace(mss=len(flow.payload)) if other_takes else flow
        assert pair.received() == whole.finished()
    back = towards(1, SENT["TCP/IPv4 in a VLAN"], 2)
    pair.two.send(bare(back))
    assert switch.read_out(pair.one) == back.finished()


@pytest.mark.parametrize("kind", KINDS)
def test_the_setting_changes_while_frames_flow(switch: MiniSwitch, kind: str) -> None:
    """The change may come at any byte of a stream."""
    chance = random.Random(1)
    pair = Pair(switch, kind, "stream")
    flow = towards(2, Flow(b"s" * 5000, 1448, options=bytes(12)))
    infers, expected, got, rest = True, [], [], b""
    for number in range(60):
        whole = bare(flow) if infers else frame(mac(2), mac(1), number.to_bytes(4, "big"), 3000)
        expected += flow.finished() if infers else [whole]
        if kind in LENGTHS:
            data = rest + record(whole, kind)
            if chance.random() < 0.5:  # set while a frame of the new kind has begun to come
                cut = chance.randrange(1, len(record(whole, kind)))
                pair.one.sock.sendall(data[: len(rest) + cut])
                data = data[len(rest) + cut :]
                got += pair.received()
            pair.one.sock.sendall(data)
        else:
            pair.one.send(whole)
        got += pair.received()
        if chance.random() < 0.5:
            infers = not infers
            switch.engines[1].infer(MTU if infers else 0)
    assert got == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_frame_that_cannot_be_cut_is_dropped_and_counted(switch: MiniSwitch, kind: str) -> None:
    pair = Pair(switch, kind, "stream")
    datagram = towards(2, Flow(b"d" * 8000, 9000, protocol=UDP))
    fits = frame(mac(2), mac(1), size=MTU + 22)
    for each in (bare(datagram), *datagram.finished(), fits, frame(mac(2), mac(1), size=MTU + 23)):
        pair.one.send(each)
    assert pair.received() == [fits]
    assert switch.counters(1)["offload"] == 3
    switch.engines[2].take(_core.TAKES_LARGE, _core.LARGEST_FRAME)
    pair.one.send(bare(datagram))
    assert pair.received() == datagram.finished()


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_that_has_no_room_for_its_header_is_too_long(switch: MiniSwitch, kind: str) -> None:
    pair = Pair(switch, kind, "stream")
    switch.engines[2].take(_core.TAKES_LARGE, _core.MAX_FRAME)
    longest = 65_535 if kind == "stream16" else _core.MAX_FRAME - HEADER
    pair.one.send(frame(mac(2), mac(1), size=longest))
    assert [len(each) for each in pair.received()] == [longest]
    if kind != "stream16":
        pair.one.send(frame(mac(2), mac(1), size=longest + 1))
        assert pair.received() == []
        assert switch.counters(1)["oversize"] == 1


@pytest.mark.guest
@pytest.mark.parametrize("kind", KINDS)
def test_a_tap_gets_a_large_frame_whole(namespace: Callable[[str], Namespace], kind: str) -> None:
    tap = Tap(namespace("inside"))
    try:
        one = tap.switch.add(3, kind)
        tap.switch.engines[3].infer(MTU)
        tap.kernel.send(frame(BROADCAST, mac(1)))
        tap.switch.settle()
        one.send(frame(mac(1), mac(3)))
        tap.switch.settle()
        flow = towards(1, FLOWS["TCP/IPv4"], 3)
        before = tap.counters()
        one.send(bare(flow))
        after = tap.counters()
        assert after["tx_frames"] - before["tx_frames"] == 1
        assert after["tx_bytes"] - before["tx_bytes"] == len(bare(flow))
        assert (after["refused"], after["stale_ring"]) == (0, 0)
    finally:
        tap.close()


def test_large_and_small_datagrams_arrive_in_order_whatever_they_are_read_into(
    namespace: Callable[[str], Namespace],
) -> None:
    """Only large ones are read straight into the ring of the TAP, while the VM has offloads."""
    tap = Tap(namespace("inside"))
    try:
        one, engine = tap.switch.add(3, "dgram", buffer=1 << 20), tap.switch.engines[3]
        for sender, source in ((tap.kernel, 1), (tap.vm, 2)):
            sender.send(frame(BROADCAST, mac(source)))
            tap.switch.settle()
        for port in (1, 2):
            one.send(frame(mac(port), mac(3)))
            tap.switch.settle()
        tap.kernel.receive_matching(lambda each: each[:6] == mac(1))
        tap.switch.read_out(tap.vm)
        draw = random.Random(1)
        for number in range(120):
            offloads = number % 4 != 3
            engine.infer(MTU if offloads else 0)
            flows = [
                Flow(draw.randbytes(draw.choice((10, 1400, 1400, 40_000))), 1460, sequence=number)
                for _ in range(draw.randint(1, 4))
            ]
            port = draw.choice((1, 1, 1, 2))
            for flow in flows:
                one.send(bare(towards(port, flow, 3)))
            tap.switch.settle()
            got = tap.switch.read_out(tap.vm)
            if port == 1:
                assert [tap.kernel.receive() for _ in flows] == [bare(towards(1, flow, 3)) for flow in flows]
                assert got == []
            elif offloads:
                assert got == [each for flow in flows for each in towards(2, flow, 3).finished()]
            else:
                assert got == [bare(towards(2, flow, 3)) for flow in flows]
    finally:
        tap.close()


@pytest.mark.parametrize("other", KINDS)
def test_frames_are_finished_whole_and_in_order_while_the_ring_fills(switch: MiniSwitch, other: str) -> None:
    """They are made at the front of the ring, and in own memory when it has no room for a run."""
    pair = Pair(switch, "dgram", other)
    draw = random.Random(2)
    for _ in range(3):
        expected: list[bytes] = []
        got: list[bytes] = []
        lost = switch.lost_towards(2)
        for number in range(160):
            size = draw.choice((10, 3000, 30_000, 60_000))
            flow = towards(2, Flow(draw.randbytes(size), 1460, sequence=number))
            pair.one.send(bare(flow))
            expected += flow.finished()
            switch.settle()
            if number % 40 == 39:
                got += pair.two.read() or []
        got += pair.received()
        rest = iter(expected)
        assert all(each in rest for each in got)
        assert len(expected) - len(got) == switch.lost_towards(2) - lost > 0


@settings(max_examples=200)
@given(
    data=st.lists(st.one_of(st.binary(min_size=14, max_size=200), st.sampled_from(list(SENT))), max_size=20),
    bends=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=5),
)
def test_the_switch_survives_any_bytes_of_a_vm(data: list[bytes | str], bends: list[tuple[int, int]]) -> None:
    with MiniSwitch() as switch:
        pair = Pair(switch, "dgram", "stream")
        for each in data:
            whole = bytearray(each if isinstance(each, bytes) else bare(towards(2, SENT[each])))
            for at, value in bends:
                if 12 <= at < len(whole):
                    whole[at] = value
            pair.one.send(bytes(whole))
        after = frame(mac(2), mac(1), b"after")
        pair.one.send(after)
        assert pair.received()[-1] == after


def sample(switch: MiniSwitch, vm: Vm, whole: bytes) -> int:
    """Send a frame when the next sample is due; returns the engine's events."""
    vm.send(whole)
    events = switch.engines[1].run(0.0)
    while switch.engines[1].run(0.015):
        continue
    return events


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in SENT if name != "finished"])
def test_a_vm_that_leaves_sums_undone_unasked_is_noticed(switch: MiniSwitch, kind: str, name: str) -> None:
    pair = Pair(switch, kind, "stream")
    engine = switch.engines[1]
    engine.infer(0)
    begun = bare(towards(2, SENT[name]))
    events = [sample(switch, pair.one, begun) for _ in range(3)]
    assert [event & _core.EVENT_UNFINISHED for event in events] == [0, 0, _core.EVENT_UNFINISHED]
    assert engine.unfinished
    engine.infer(MTU)
    assert not engine.unfinished


def test_a_vm_that_finishes_its_sums_is_not(switch: MiniSwitch) -> None:
    pair = Pair(switch, "dgram", "stream")
    engine = switch.engines[1]
    engine.infer(0)
    flow = towards(2, SENT["TCP/IPv4"])
    begun, finished = bare(flow), flow.finished()[0]
    for whole in (finished, begun, finished, begun, begun, finished, frame(mac(2), mac(1)), finished, begun):
        sample(switch, pair.one, whole)
        assert not engine.unfinished
    for _ in range(2):
        sample(switch, pair.one, begun)
    assert engine.unfinished
    for _ in range(3):
        assert engine.unfinished
        sample(switch, pair.one, finished)
    assert not engine.unfinished

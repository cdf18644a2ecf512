"""Early drop: which flow a frame belongs to, and which frame is dropped when a ring fills up.

By themselves first, then in an engine; its "TAP" is a socket that has a frame and its header in a packet.
"""

from __future__ import annotations

import random
import re
import socket
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import _core
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, Vm, frame, mac
from tests.helpers.core.model_segments import TCP, UDP, Flow

MEMORY = 64 << 20
WAYS = SETS = 8
OTHERS = 8
SAMPLED = 3 << 13
"""A frame so large is always a sample."""


class Model:
    """What the theory in ``early_drop.h`` says of frames that are all samples."""

    def __init__(self) -> None:
        self.sets: list[dict[int, int]] = [{} for _ in range(SETS)]
        self.deep = False
        self.mark: int | None = None

    def put(self, flow: int, size: int, deep: bool) -> bool:
        if sum(sum(each.values()) for each in self.sets) > MEMORY:
            self.sets = [{flow: size // 2 for flow, size in each.items()} for each in self.sets]
            self.mark = None
        counts = self.sets[flow % SETS]
        if flow not in counts and len(counts) == WAYS:
            del counts[min(counts, key=counts.__getitem__)]
        counts[flow] = counts.get(flow, 0) + size
        if deep and not self.deep:
            self.mark = self._heaviest()
        self.deep = deep
        dropped = flow == self.mark
        self.mark = None if dropped else self.mark
        return not dropped

    def _heaviest(self) -> int | None:
        every = {flow: count for each in self.sets for flow, count in each.items()}
        heaviest, total = max(every, key=every.__getitem__), sum(every.values())
        return None if total - every[heaviest] < total // OTHERS else heaviest


@given(flows=st.integers(1, WAYS), steady=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_dropped_frame_belongs_to_the_heaviest_flow(flows: int, steady: int, seed: int) -> None:
    chance, early, model = random.Random(seed), _core.EarlyDrop(), Model()
    deep, dropped = False, 0
    for number in range(4000):
        flow = int(flows * chance.random() ** 2) * SETS  # all in one set
        size = chance.randrange(SAMPLED, 65_550)  # no two flows have the same count but by chance
        deep ^= number % steady == 0
        goes = model.put(flow, size, deep)
        assert early.put(flow, size, deep) == goes
        dropped += not goes
    assert (dropped > 0) == (flows > 1)


@given(flows=st.integers(2, 20), seed=st.integers(0, 1000))
def test_samples_find_the_heaviest_flow_in_any_order_of_small_frames(flows: int, seed: int) -> None:
    chance, early = random.Random(seed), _core.EarlyDrop()
    heavy = chance.randrange(flows)
    turn = [*range(flows), heavy]
    for number in range(40_000 // flows):
        assert all(early.put(flow, 1518, False) for flow in turn), number
    # The ring is seen to be deep with the next sample, which is near.
    assert all(early.put(flow, 1518, True) for _ in range(20) for flow in range(flows) if flow != heavy)
    assert not early.put(heavy, 1518, False)


@given(labels=st.sets(st.integers(0, 0xFFFF), min_size=100, max_size=200))
def test_a_heavy_flow_is_found_among_more_than_are_counted(labels: set[int]) -> None:
    early, (heavy, *light) = _core.EarlyDrop(), sorted(labels)
    for number, flow in enumerate(light * 3):
        assert early.put(flow, SAMPLED, False)
        assert number % 10 or early.put(heavy, 2 * SAMPLED, False)
    assert all(early.put(flow, SAMPLED, True) for flow in light)
    assert not early.put(heavy, SAMPLED, False)  # whenever it comes
    assert early.put(heavy, SAMPLED, False)


def test_one_frame_is_dropped_each_time_that_the_ring_gets_deep() -> None:
    early = _core.EarlyDrop()
    assert all(early.put(flow, SAMPLED, False) for flow in (1, 2))
    assert sum(not early.put(flow, SAMPLED, True) for _ in range(500) for flow in (1, 2)) == 1
    assert sum(not early.put(flow, SAMPLED, flow == 2) for _ in range(500) for flow in (1, 2)) >= 499


def test_a_single_flow_yields_to_none() -> None:
    def dropped(size: int) -> int:
        early = _core.EarlyDrop()
        return sum(
            not (early.put(1, 65_550, deep) and early.put(2, size, deep))
            for _ in range(500)
            for deep in (False, True)
        )

    assert dropped(66) == 0
    assert dropped(SAMPLED) > 490


FRAME, RING, ROUNDS = 65_536, 4 << 20, 20_000


def shares(is_early: bool) -> list[float]:
    """What eight streams get that send their windows in the same order every time, and halve them at a loss.

    Between two bursts the ring is emptied, as by a worker that was off the processor while it was filled.
    """
    early = _core.EarlyDrop()
    windows, sent = [4.0] * 8, [0] * 8
    for _ in range(ROUNDS):
        ring = 0
        for flow, window in enumerate(windows):
            losses = 0
            for _ in range(int(window)):
                if (is_early and not early.put(flow, FRAME, ring > RING // 2)) or ring + FRAME > RING:
                    losses += 1
                else:
                    ring += FRAME
                    sent[flow] += 1
            windows[flow] = max(window / 2, 1.0) if losses else window + 0.05
    return [each / statistics.mean(sent) for each in sent]


def test_streams_come_to_the_same_rate_whatever_order_they_are_served_in() -> None:
    assert max(shares(is_early=False)) > 1.3  # the ring always has room for the first one
    assert 0.94 < min(shares(is_early=True)) <= max(shares(is_early=True)) < 1.06


@given(
    ipv6=st.booleans(),
    protocol=st.sampled_from((TCP, UDP)),
    tags=st.lists(st.integers(0, 0xFFFF), max_size=2),
    options=st.sampled_from((b"", bytes(8))),
    data=st.data(),
)
def test_frames_of_one_flow_have_one_label(
    ipv6: bool, protocol: int, tags: list[int], options: bytes, data: st.DataObject
) -> None:
    def of(**fields: object) -> int:
        flow = Flow(b"x" * 3000, 1000, ipv6, protocol, tuple(tags), b"" if ipv6 else options, options)
        (label,) = {_core.flow_of(each) for each in flow._replace(**fields).finished()}  # type: ignore[arg-type]
        return label

    later = {"payload": data.draw(st.binary(min_size=1, max_size=2000)), "ident": 7, "sequence": 9}
    assert of() == of(**later) == of(tags=()) == of(extra=b"", options=b"")
    assert of() != of(protocol=TCP + UDP - protocol)


ADDRESSES, PORTS = range(26, 34), range(34, 38)
"""Where they are in a frame of TCP over IPv4."""


def test_another_address_or_port_is_another_flow() -> None:
    (plain,) = Flow(b"x" * 10, 1000).finished()
    labels = {_core.flow_of(plain)}
    for at in (*ADDRESSES, *PORTS):
        other = bytearray(plain)
        other[at] ^= 1
        labels.add(_core.flow_of(bytes(other)))
    assert len(labels) == 13


def test_labels_are_spread_evenly_over_all_sets() -> None:
    (plain,) = Flow(b"x" * 10, 1000).finished()
    labels = []
    for port in range(40_000, 44_096):
        labels.append(_core.flow_of(plain[:34] + port.to_bytes(2, "big") + plain[36:]))
    # Of 4,096 thrown into 65,536 places by chance 125 fall on another one; each eighth gets 512.
    assert len(set(labels)) > 3900
    assert all(400 < sum(label % SETS == each for label in labels) < 630 for each in range(SETS))


def test_the_parts_of_a_fragmented_packet_have_one_label() -> None:
    (plain,) = Flow(b"x" * 10, 1000, protocol=UDP).finished()
    first, later = plain[:20] + b"\x20\0" + plain[22:], plain[:20] + b"\0\x10" + plain[22:34] + b"other ports"
    assert _core.flow_of(first) == _core.flow_of(later)


@given(bytes_=st.binary(min_size=14, max_size=80))
def test_any_frame_has_a_label(bytes_: bytes) -> None:
    assert 0 <= _core.flow_of(bytes_) <= 0xFFFF


SENDER, RECEIVER = 1, 2
HEADER = bytes(10)


def join(switch: MiniSwitch, port: int, kind: str) -> Vm:
    """A VM that the others know, and whose frames fill a ring as soon as it does not read."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) if kind == "tap" else None
    vm = switch.add(port, kind, buffer=1 << 16, ends=ends)
    vm.send((HEADER if kind == "tap" else b"") + frame(BROADCAST, mac(port)))
    switch.settle()
    return vm


def large(payload: bytes, ipv6: bool) -> bytes:
    return Flow(payload, 1448, ipv6, destination=mac(RECEIVER), source=mac(SENDER)).unfinished()


@pytest.mark.parametrize("source", ["tap", "stream"])
@pytest.mark.parametrize("target", ["tap", "stream"])
def test_the_heaviest_stream_loses_a_frame_or_only_a_segment(source: str, target: str) -> None:
    at = 0 if source == "tap" else len(HEADER)
    heavy, light = large(b"h" * 60_000, ipv6=False)[at:], large(b"l" * 30_000, ipv6=True)[at:]
    with MiniSwitch() as switch:
        vm, receiver = join(switch, SENDER, source), join(switch, RECEIVER, target)
        vm.send(light)
        switch.settle()
        receiver.received()
        for _ in range(8):  # 720 of 1,024 KB: the ring gets deep, and not full
            for each in (heavy, light):
                vm.send(each)
                switch.engines[SENDER].run(0)
        lost = switch.lost_towards(RECEIVER)
        received = b"".join(switch.read_out(receiver))
    assert lost == 1
    cost = {("tap", "tap"): 60_000 % 1448, ("tap", "stream"): 1448}.get((source, target), 60_000)
    assert sum(map(len, re.findall(b"h{99,}", received))) == 8 * 60_000 - cost
    assert sum(map(len, re.findall(b"l{99,}", received))) == 8 * 30_000

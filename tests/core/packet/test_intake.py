"""What a destination takes: a word that its worker writes at run time, senders obey, and it keeps itself."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from forwarder import _core
from forwarder._core import TAKES_ECN, TAKES_SUM, TAKES_TSO4, TAKES_TSO6, TAKES_USO4, TAKES_USO6
from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac, record
from tests.helpers.core.model_segments import ACK, CWR, vnet
from tests.helpers.core.tap import FLOWS, Neighbour, Tap, device_in, towards
from tests.helpers.guests.fake_vm import OffloadVM
from tests.helpers.guests.netns import Namespace

TAKES_ALL = TAKES_SUM | TAKES_TSO4 | TAKES_TSO6 | TAKES_ECN | TAKES_USO4 | TAKES_USO6
LONGEST = 1500 + _core.LINK_BYTES


class Taps:
    """Two TAPs, ports 1 and 3, of which the first sends to the second."""

    def __init__(self, tap: Tap, other: Namespace) -> None:
        self.tap, self.switch = tap, tap.switch
        self.sender: OffloadVM = tap.inside.offload_vm()
        self.switch.attach(3, "tap", device_in(other))
        with other.offload_vm() as receiver:
            receiver.send(vnet() + frame(BROADCAST, mac(3)))
            self.switch.settle()
        self.sender.send(vnet() + frame(mac(3), mac(1)))  # asks for the ring
        self.switch.settle()

    def arrives(self, whole: bytes) -> tuple[int, int]:
        """Frames that reach the second TAP of one sent, and their bytes."""
        before = self.switch.counters(3)
        self.sender.send(whole)
        self.switch.settle()
        after = self.switch.counters(3)
        return after["tx_frames"] - before["tx_frames"], after["tx_bytes"] - before["tx_bytes"]


@pytest.fixture
def tap(namespace: Callable[[str], Namespace]) -> Iterator[Tap]:
    made = Tap(namespace("inside"))
    yield made
    made.close()


@pytest.fixture
def taps(tap: Tap, namespace: Callable[[str], Namespace]) -> Iterator[Taps]:
    made = Taps(tap, namespace("other"))
    flow = towards(3, FLOWS["UDP/IPv4"])
    if made.arrives(flow.unfinished())[0] > 1:
        pytest.skip("this kernel cuts such frames itself")
    yield made
    made.sender.close()


NEEDS = {
    "TCP/IPv4": TAKES_SUM | TAKES_TSO4,
    "TCP/IPv6": TAKES_SUM | TAKES_TSO6,
    "UDP/IPv4": TAKES_SUM | TAKES_USO4,
    "UDP/IPv6": TAKES_SUM | TAKES_USO6,
    "TCP/IPv4 in a VLAN": TAKES_SUM | TAKES_TSO4,
}


@pytest.mark.guest
@pytest.mark.parametrize("kind", NEEDS)
def test_senders_leave_undone_only_accepted_offloads(taps: Taps, kind: str) -> None:
    flow = towards(3, FLOWS[kind])
    whole = flow.unfinished()
    cut = (len(flow.finished()), sum(map(len, flow.finished())))
    as_it_is = (1, len(whole) - OffloadVM.HEADER_BYTES)
    engine = taps.switch.engines[3]
    for takes in (0, TAKES_SUM, TAKES_ALL & ~NEEDS[kind], TAKES_ALL & ~(NEEDS[kind] & ~TAKES_SUM)):
        engine.take(takes, _core.MAX_FRAME)
        assert taps.arrives(whole) == cut
    for takes in (NEEDS[kind], TAKES_ALL):
        engine.take(takes, _core.MAX_FRAME)
        assert taps.arrives(whole) == as_it_is
    assert taps.switch.counters(3)["refused"] == 0


@pytest.mark.guest
def test_a_notice_of_congestion_is_a_bit_of_its_own(taps: Taps) -> None:
    flow = towards(3, FLOWS["TCP/IPv4"])._replace(flags=ACK | CWR)
    taps.switch.engines[3].take(TAKES_SUM | TAKES_TSO4, _core.MAX_FRAME)
    assert taps.arrives(flow.unfinished())[0] == len(flow.finished())
    taps.switch.engines[3].take(TAKES_SUM | TAKES_TSO4 | TAKES_ECN, _core.MAX_FRAME)
    assert taps.arrives(flow.unfinished())[0] == 1


@pytest.mark.guest
def test_frames_of_which_some_go_as_they_are_stay_in_order(taps: Taps) -> None:
    taps.switch.engines[3].take(TAKES_SUM | TAKES_TSO4, _core.MAX_FRAME)
    flows = [
        towards(3, FLOWS[kind]) for kind in ("TCP/IPv4", "TCP/IPv6", "one segment", "UDP/IPv6", "TCP/IPv4")
    ]
    expected = [1, len(flows[1].finished()), 1, len(flows[3].finished()), 1]
    before = taps.switch.counters(3)["tx_frames"]
    for flow in flows:
        taps.sender.send(flow.unfinished())
    taps.switch.settle()
    assert taps.switch.counters(3)["tx_frames"] - before == sum(expected)


@pytest.mark.guest
def test_a_large_frame_is_finished_and_not_cut_for_a_vm_that_accepts_large_ones(tap: Tap) -> None:
    flow = towards(2, FLOWS["TCP/IPv4"])
    whole = flow._replace(mss=len(flow.payload)).finished()
    tap.vm.send(frame(BROADCAST, mac(2)))
    tap.switch.settle()
    with tap.inside.offload_vm() as sender:
        sender.send(vnet() + frame(mac(2), mac(1)))
        tap.switch.settle()
        tap.vm.received()
        for takes, longest, expected in (
            (_core.TAKES_LARGE, _core.LARGEST_FRAME, whole),
            (_core.TAKES_LARGE, 40_000, flow.finished()),
            (0, _core.MAX_FRAME, flow.finished()),
            (0, 1018, flow._replace(mss=1018 - 66).finished()),
        ):
            tap.switch.engines[2].take(takes, longest)
            sender.send(flow.unfinished())
            tap.switch.settle()
            assert tap.vm.received() == expected
    assert tap.switch.counters(2)["refused"] == 0


@pytest.mark.guest
def test_frames_under_way_are_refused_when_the_intake_shrinks(tap: Tap) -> None:
    """The ring of these frames stays in use."""
    neighbour = Neighbour(tap)
    flows = [
        FLOWS[kind]._replace(source=mac(9), payload=bytes(9000)) for kind in ("TCP/IPv4", "TCP/IPv6") * 2
    ]
    records = b"".join(record(flow.unfinished()) for flow in flows) + record(vnet() + frame(mac(1), mac(9)))
    for takes, refused in ((TAKES_SUM | TAKES_TSO4, 2), (TAKES_SUM, 4), (0, 5), (TAKES_ALL, 0)):
        tap.switch.engines[1].take(takes, _core.MAX_FRAME)
        before = tap.counters()
        neighbour.put(records)
        after = tap.counters()
        assert after["refused"] - before["refused"] == refused
        assert after["tx_frames"] - before["tx_frames"] == 5 - refused
    assert tap.counters()["stale_ring"] == 0


@pytest.mark.guest
def test_a_finished_frame_behind_a_header_may_be_no_longer_than_a_plain_one(tap: Tap) -> None:
    neighbour = Neighbour(tap)
    tap.switch.engines[1].take(TAKES_ALL & ~TAKES_USO6, 1518)
    neighbour.put(b"".join(record(vnet() + frame(mac(1), mac(9), size=size)) for size in (1518, 1519, 60)))
    assert (tap.counters()["refused"], tap.counters()["tx_frames"]) == (1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("buffer", [1 << 20, 4096])
def test_no_frame_longer_than_the_vm_takes_reaches_it(kind: str, buffer: int) -> None:
    """Flooded or not, and with any end of the VM's buffer."""
    chance = random.Random(1)
    with MiniSwitch() as switch:
        one, two = switch.add(1, "stream"), switch.add(2, kind, buffer=buffer)
        two.send(frame(BROADCAST, mac(2)))
        switch.settle()
        switch.engines[2].take(0, LONGEST)
        sizes = [chance.choice((60, LONGEST - 1, LONGEST, LONGEST + 1, 9014, 65_535)) for _ in range(400)]
        sent = [
            frame(BROADCAST if chance.random() < 0.1 else mac(2), mac(1), number.to_bytes(4, "big"), size)
            for number, size in enumerate(sizes)
        ]
        got: list[bytes] = []
        for each in sent:
            one.send(each)
            if chance.random() < 0.3:
                switch.settle()
            if chance.random() < 0.1:
                got += switch.read_out(two, 700 if kind in ("stream", "stream16") else 1 << 18)
        got += switch.read_out(two)
        fitting = [each for each in sent if len(each) <= LONGEST]
        assert sorted(got) == sorted(fitting)
        unicast = [each for each in got if each[:6] == mac(2)]
        assert unicast == [each for each in fitting if each[:6] == mac(2)]
        counters = switch.counters(2)
        assert counters["refused"] == len(sent) - len(fitting)
        assert counters["tx_frames"] == len(fitting)
        assert counters["tx_bytes"] == sum(map(len, fitting))
        assert switch.lost_towards(2) == 0


def test_bytes_inside_of_a_frame_are_not_taken_for_a_length() -> None:
    """A stream that stopped inside a frame goes on there, with any next bytes."""
    with MiniSwitch() as switch:
        one, two = switch.add(1, "stream"), switch.add(2, "stream", buffer=4096)
        two.send(frame(BROADCAST, mac(2)))
        switch.settle()
        switch.engines[2].take(0, LONGEST)
        lengths = (9014).to_bytes(4, "big") * 400
        sent = [frame(mac(2), mac(1), lengths[number % 4 :], LONGEST)[:LONGEST] for number in range(100)]
        one.send(*sent)
        assert switch.read_out(two, 700) == sent
        assert switch.counters(2)["refused"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_intake_of_a_vm_changes_while_frames_flow(kind: str) -> None:
    with MiniSwitch() as switch:
        one, two = switch.add(1, "stream"), switch.add(2, kind)
        two.send(frame(BROADCAST, mac(2)))
        switch.settle()
        sent = [frame(mac(2), mac(1), os.urandom(4), size) for size in (60, 9014, 60)]
        for longest, expected in (
            (_core.MAX_FRAME, sent),
            (LONGEST, sent[::2]),
            (9014, sent),
            (60, sent[::2]),
        ):
            one.send(*sent)
            switch.engines[1].run(0)  # they are in the ring before the word is written
            switch.engines[2].take(0, longest)
            assert switch.read_out(two) == expected
        assert switch.counters(2)["refused"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_holds_whatever_the_vm_takes(kind: str) -> None:
    with MiniSwitch() as switch:
        one, two = switch.add(1, "stream"), switch.add(2, kind)
        two.send(frame(BROADCAST, mac(2)))
        switch.settle()
        sent = [frame(mac(2), mac(1), size=size) for size in (1518, 1519)]
        for limit, longest, expected in (
            (1518, _core.MAX_FRAME, 1),
            (_core.MAX_FRAME, 1518, 1),
            (9000, 9000, 2),
        ):
            switch.engines[2].take(0, longest)
            switch.engines[2].limit(limit)
            switch.engines[2].take(0, longest)
            one.send(*sent)
            assert switch.read_out(two) == sent[:expected]

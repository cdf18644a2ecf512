"""Egress to a VM that reads late, little or not at all, without effect on others."""

from __future__ import annotations

import os
import socket

import pytest

from forwarder import _core
from forwarder.channel import close_all
from tests.helpers.core.engine_thread import asleep
from tests.helpers.core.mini_switch import BROADCAST, KINDS, LENGTHS, RING_BYTES, MiniSwitch, frame, mac
from tests.helpers.core.scribble import RingScribble
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import PATIENCE


def to(dst: int, src: int, number: int, size: int = 1514) -> bytes:
    return frame(mac(dst), mac(src), number.to_bytes(4, "big"), size)


def fill(switch: MiniSwitch, src: int, dst: int, count: int, size: int = 1514, first: int = 0) -> list[bytes]:
    """Send ``count`` frames, whether there is room for them or not."""
    frames = [to(dst, src, number, size) for number in range(first, first + count)]
    for at in range(0, count, 20):
        switch.vms[src].send(*frames[at : at + 20])
        switch.settle()
    return frames


@pytest.mark.parametrize("kind", LENGTHS)
def test_stream_stays_whole_for_a_vm_that_sips(kind: str) -> None:
    """Short writes everywhere: the rest of a cut frame is written first, before all others."""
    with MiniSwitch() as switch:
        slow = switch.add(1, kind, buffer=4608)
        senders = dict(enumerate(KINDS, 2))
        for port, each in senders.items():
            switch.add(port, each)
        switch.greet()
        sent = []
        for port in senders:
            sent += fill(switch, port, 1, 3, size=9014) + fill(switch, port, 1, 20, size=60, first=3)
            flooded = [frame(BROADCAST, mac(port), bytes((n,)), 1514) for n in range(3)]
            switch.vms[port].send(*flooded)
            sent += flooded
        got = switch.read_out(slow, most=97)
        assert sorted(got) == sorted(sent)
        assert not slow.mid_frame
        for port in senders:
            numbers = [each[14:18] for each in got if each[:12] == mac(1) + mac(port)]
            assert numbers == sorted(numbers)
        assert switch.counters(1)["tx_frames"] == len(sent) + len(senders)  # and the greetings
        assert switch.counters(1)["tx_bytes"] == sum(map(len, sent)) + 60 * len(senders)
        assert switch.counters(1)["egress_bytes"] == 0


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("leaver", [2, 3, 4])
def test_cut_frame_is_completed_even_if_its_source_leaves(leaver: int, kind: str) -> None:
    """Port 3's frame is cut. The others wait; the frame stays whole if they leave or if port 3 leaves."""
    with MiniSwitch() as switch:
        for port in (2, 3, 4):
            switch.add(port, "stream")
        slow = switch.add(1, kind, buffer=4608)
        switch.greet()
        sent = fill(switch, 3, 1, 6, size=9014)
        assert switch.counters(1)["egress_bytes"] > 0
        for port in (2, 4):
            sent += fill(switch, port, 1, 5)
        switch.remove(leaver)
        got = switch.read_out(slow, most=1000)
        assert not slow.mid_frame
        assert set(got) <= set(sent)
        counters = switch.counters(1)
        assert len(got) + counters["stale_ring"] == len(sent)
        assert counters["tx_frames"] == len(got) + 3
        assert counters["tx_bytes"] == sum(map(len, got)) + 3 * 60
        if leaver == 3:
            assert [each for each in got if each[6:12] == mac(3)] == sent[: 6 - (counters["stale_ring"])]


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("kind", LENGTHS)
def test_ring_that_is_tampered_with_inside_of_a_frame_leaves_the_vm_in_step(kind: str, leaves: bool) -> None:
    with MiniSwitch() as switch:
        for port in (2, 3):
            switch.add(port, "stream")
        slow = switch.add(1, kind, buffer=4608)
        switch.greet()
        rings: list[RingScribble] = []
        switch.on_ring = lambda *fds: rings.append(RingScribble(*fds, RING_BYTES))
        sent = fill(switch, 3, 1, 6, size=9014)
        for at in range(6):
            rings[0].write(at * 9018, b"\0\0\0\1")
        if leaves:
            switch.remove(3)
        honest = fill(switch, 2, 1, 5)
        got = switch.read_out(slow, most=1000)
        assert not slow.mid_frame
        assert got
        assert [each for each in got if each[6:12] == mac(3)] == sent[: len(got) - len(honest)]
        assert [each for each in got if each[6:12] == mac(2)] == honest
        assert not switch.engines[1].run(0) & _core.EVENT_LINK_DOWN


@pytest.mark.parametrize("kind", KINDS)
def test_ring_with_impossible_lengths_is_given_up_and_counted(kind: str) -> None:
    with MiniSwitch() as switch:
        rings: list[RingScribble] = []
        switch.on_ring = lambda *fds: rings.append(RingScribble(*fds, RING_BYTES))
        one = switch.add(1, kind)
        for port in (2, 3):
            switch.add(port, "stream")
        switch.greet()
        switch.vms[2].send(*[to(1, 2, n, 60) for n in range(4)])
        switch.engines[2].run(0)
        switch.connect(2, 1)
        rings[0].write(2 * 64, b"\0\0\0\1")  # the third of four
        switch.settle()
        assert one.received() == [to(1, 2, n, 60) for n in range(2)]
        assert switch.counters(1)["stale_ring"] == 2 + 1  # two frames, and the event itself
        fill(switch, 3, 1, 3)
        assert len(one.received()) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_ring_with_headers_for_a_vm_that_knows_none_is_given_up_and_counted(kind: str) -> None:
    """Otherwise the headers of a TAP's offloads would reach the VM as frames."""
    with MiniSwitch() as switch:
        rings: list[RingScribble] = []
        switch.on_ring = lambda *fds: rings.append(RingScribble(*fds, RING_BYTES))
        one = switch.add(1, kind)
        switch.add(2, "stream")
        switch.greet()
        for number in range(3):
            switch.vms[2].send(to(1, 2, number, 60))
            switch.engines[2].run(0)
            if number == 0:
                switch.connect(2, 1)
        rings[0].describe(1, 64, 64, 1, mac(2), 1)  # the second of three
        switch.settle()
        assert one.received() == [to(1, 2, 0, 60)]
        assert switch.counters(1)["stale_ring"] == 2 + 1  # two frames, and the event itself
        assert switch.engines[1].link_error == ""


@pytest.mark.parametrize("kind", KINDS)
def test_full_ring_drops_at_the_source_towards_the_destination(kind: str) -> None:
    with MiniSwitch() as switch:
        switch.add(1, kind, buffer=8192)
        for port in (2, 3):
            switch.add(port, "stream")
        switch.greet()
        sent = fill(switch, 2, 1, 1000)
        few = fill(switch, 3, 1, 5)
        losses = _core.StatsPage(switch.stats[2]).losses()
        assert [(peer, whose) for peer, whose, _, _ in losses] == [(1, switch.attachments[1])]
        assert _core.StatsPage(switch.stats[3]).losses() == []
        assert switch.counters(1)["eagain"] >= 1
        got = switch.read_out(switch.vms[1])
        assert len(got) + losses[0][2] == len(sent) + len(few)
        assert [each for each in got if each in set(few)] == few
        # The tail is dropped, so the first frames are those that arrive.
        assert [each for each in got if each not in set(few)] == sent[: len(sent) - losses[0][2]]


@pytest.mark.parametrize("kind", KINDS)
def test_stuck_vm_costs_no_turns(kind: str) -> None:
    with MiniSwitch() as switch:
        switch.add(1, kind, buffer=8192)
        switch.add(2, "stream")
        switch.greet()
        fill(switch, 2, 1, 300)
        before = switch.counters(1)
        switch.engines[1].run(0.1)
        after = switch.counters(1)
        assert after["egress_bytes"] > 100_000
        assert after["turns"] - before["turns"] <= 5


@pytest.mark.parametrize("kind", KINDS)
def test_stuck_vm_costs_its_neighbours_no_bells(kind: str) -> None:
    """The worker of a stuck VM sleeps until the VM reads, and asks for no bells meanwhile."""
    with MiniSwitch() as switch:
        switch.add(1, kind, buffer=8192)
        switch.add(2, "stream")
        switch.greet()
        fill(switch, 2, 1, 300)
        bells = switch.counters(2)["doorbells"]
        with asleep(switch, 1):
            fill(switch, 2, 1, 40)
            switch.vms[2].send(frame(BROADCAST, mac(2)))
            switch.settle()
            assert switch.counters(2)["doorbells"] == bells


def test_datagram_vm_that_is_not_connected_back_costs_few_turns() -> None:
    """Such a socket holds only 11 frames, and is full before SO_SNDBUF is used up."""
    ours, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with short_directory() as directory, MiniSwitch() as switch:
        theirs.bind(str(directory / "vm"))
        ours.connect(str(directory / "vm"))
        one = switch.add(1, "dgram", ends=(ours, theirs))
        switch.add(2, "stream")
        switch.vms[2].send(*[frame(BROADCAST, mac(2), bytes((n,))) for n in range(60)])
        switch.settle()
        assert switch.counters(1)["egress_bytes"] > 0
        before = switch.counters(1)["turns"]
        switch.engines[1].run(0.1)
        assert switch.counters(1)["turns"] - before <= 40
        got: list[bytes] = []
        while len(got) < 60:
            got += one.received()
            switch.engines[1].run(0.02)
        assert got == [frame(BROADCAST, mac(2), bytes((n,))) for n in range(60)]


@pytest.mark.parametrize("kind", ["seqpacket", "dgram"])
def test_frame_too_long_for_the_socket_is_refused_alone(kind: str) -> None:
    with MiniSwitch() as switch:
        one = switch.add(1, kind, buffer=8192)
        switch.add(2, "stream")
        switch.greet()
        fill(switch, 2, 1, 1, size=65550)
        few = fill(switch, 2, 1, 3, size=60)
        assert switch.read_out(one) == few
        assert switch.counters(1)["refused"] == 1
        assert switch.engines[1].link_error == ""


def test_frame_too_long_for_its_framing_is_refused_alone() -> None:
    """One byte more than 16 bits can hold: the frames before and behind it arrive whole."""
    with MiniSwitch() as switch:
        one = switch.add(1, "stream16")
        switch.add(2, "stream")
        switch.greet()
        sizes = (65535, 65536, 60, 69632, 65535)
        for dst in (BROADCAST, mac(1)):
            frames = [frame(dst, mac(2), bytes((n,)), size) for n, size in enumerate(sizes)]
            switch.vms[2].send(*frames[:2], frames[2])
            got = switch.read_out(one)
            switch.vms[2].send(*frames[3:])
            got += switch.read_out(one)
            assert got == [each for each in frames if len(each) <= 65535]
        counters = switch.counters(1)
        assert (counters["refused"], counters["tx_frames"]) == (4, 6 + 1)
        assert counters["tx_bytes"] == 2 * (2 * 65535 + 60) + 60
        assert switch.lost_towards(1) == 0
        assert not one.mid_frame


@pytest.mark.parametrize("kind", KINDS)
def test_eight_sources_share_a_vm_equally(kind: str) -> None:
    """Equal in bytes, with any length of frames and any number of waiting ones."""
    sizes = (60, 60, 300, 1514, 1514, 9014, 9014, 65535)
    with MiniSwitch() as switch:
        slow = switch.add(1, kind, buffer=200_000 if kind in LENGTHS else 400_000)
        for port in range(2, 10):
            switch.add(port, "stream")
        switch.greet()
        got: dict[bytes, int] = dict.fromkeys([mac(port) for port in range(2, 10)], 0)
        before = dict(got)
        total = 0
        while total < 12_000_000:
            for port, size in zip(range(2, 10), sizes, strict=True):
                for _ in range(4):
                    switch.vms[port].send(*[to(1, port, 0, size)] * (100_000 // size))
                    switch.engines[port].run(0)
            switch.turn()
            for each in slow.received():
                got[each[6:12]] += len(each)
            total = sum(got.values())
            if total < 4_000_000:
                before = dict(got)
        shares = [got[each] - before[each] for each in got]
        assert max(shares) < 1.25 * min(shares), shares


def test_stuck_vm_does_not_hold_up_the_others() -> None:
    with MiniSwitch() as switch:
        switch.add(1, "stream", buffer=4608)
        two = switch.add(2, "stream")
        switch.add(3, "stream")
        switch.greet()
        fill(switch, 3, 1, 800)
        for number in range(200):
            switch.vms[3].send(to(1, 3, number), to(2, 3, number))
            switch.settle()
        assert two.received() == [to(2, 3, number) for number in range(200)]
        assert switch.lost_towards(2) == 0
        assert switch.lost_towards(1) > 200


def test_nothing_of_an_earlier_life_is_forwarded() -> None:
    with MiniSwitch() as switch:
        slow = switch.add(1, "seqpacket", buffer=8192)
        switch.add(2, "stream")
        switch.greet()
        rings: list[int] = []
        switch.on_ring = lambda *fds: rings.extend(map(os.dup, fds))
        sent = fill(switch, 2, 1, 100)
        old_epoch = switch.epochs[2]
        switch.restart(2)
        got = switch.read_out(slow)
        assert got == sent[: len(got)]
        assert len(got) + switch.counters(1)["stale_ring"] == len(sent)
        for epoch in (old_epoch, switch.epochs[2]):
            with pytest.raises(OSError, match="Stale"):
                switch.engines[1].attach_rx(2, epoch, *rings[:2])
        close_all(rings)
        again = fill(switch, 2, 1, 5)
        assert switch.read_out(slow) == again


def test_sleeping_worker_is_woken_once_by_one_bell() -> None:
    """Port 1's engine sleeps; each frame must wake it at once."""
    with MiniSwitch() as switch:
        one, two = switch.add(1, "stream"), switch.add(2, "stream")
        switch.greet()
        two.send(to(1, 2, 0))
        switch.settle()
        one.received()
        bells = switch.counters(2)["doorbells"]
        one.sock.settimeout(PATIENCE)
        with asleep(switch, 1):
            for number in range(200):
                two.send(to(1, 2, number) if number % 2 else frame(BROADCAST, mac(2), bytes((number,))))
                switch.engines[2].run(0)
                got: list[bytes] = []
                while not got:
                    got += one.read() or []
                assert len(got) == 1
        assert switch.counters(2)["doorbells"] - bells <= 200

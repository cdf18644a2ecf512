"""Flood rings: written once, read by all, and a reader's losses are counted to the frame."""

from __future__ import annotations

import mmap
import os

import pytest

from forwarder import _core
from tests.helpers.core.mini_switch import BROADCAST, FLOOD_BYTES, KINDS, LENGTHS, MiniSwitch, frame, mac


def broadcasts(src: int, first: int, count: int, size: int = 1514) -> list[bytes]:
    return [
        frame(BROADCAST, mac(src), number.to_bytes(4, "big"), size) for number in range(first, first + count)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_one_write_reaches_every_reader_once(kind: str) -> None:
    with MiniSwitch() as switch:
        for port in range(1, 6):
            switch.add(port, kind)
        sent = [*broadcasts(1, 0, 20), frame(bytes.fromhex("333300000001"), mac(1)), frame(mac(99), mac(1))]
        switch.vms[1].send(*sent)
        switch.settle()
        assert switch.counters(1)["flooded"] == len(sent)
        assert switch.vms[1].received() == []
        for port in range(2, 6):
            assert switch.vms[port].received() == sent


@pytest.mark.parametrize("kind", KINDS)
def test_lapped_reader_counts_its_losses_exactly(kind: str) -> None:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        slow = switch.add(2, kind, buffer=8192)
        quick = switch.add(3, kind)
        sent: list[bytes] = []
        got: list[bytes] = []
        for _ in range(3):
            for _ in range(20):
                burst = broadcasts(1, len(sent), 40)
                sent += burst
                switch.vms[1].send(*burst)
                switch.settle()
                got += quick.received()
            slow.read(100) if kind in LENGTHS else slow.received()
        assert got == sent
        assert switch.counters(3)["flood_lost"] == 0
        late = switch.read_out(slow)
        # What the loop above read is not in `late`: count by the switch's own figure of what it wrote.
        counters = switch.counters(2)
        assert counters["tx_frames"] + counters["flood_lost"] == len(sent)
        assert counters["flood_lost"] > 100
        assert [(peer, lost) for peer, _, _, lost in _core.StatsPage(switch.stats[2]).losses()] == [
            (1, counters["flood_lost"])
        ]
        assert late == [each for each in sent if each in set(late)]
        assert not slow.mid_frame


def test_burst_longer_than_the_ring_is_lost_and_counted() -> None:
    with MiniSwitch() as switch:
        switch.add(1, "dgram")
        other = switch.add(2, "dgram")
        for number in range(12):
            switch.vms[1].send(frame(BROADCAST, mac(1), bytes((number,)), 65550))
        switch.settle()
        got = switch.read_out(other)
        assert len(got) + switch.counters(2)["flood_lost"] == 12
        switch.vms[1].send(frame(BROADCAST, mac(1)))
        assert switch.read_out(other) == [frame(BROADCAST, mac(1))]


def test_newcomer_hears_older_ports_from_now_on() -> None:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        switch.vms[1].send(*broadcasts(1, 0, 5))
        switch.settle()
        newcomer = switch.add(2, "stream")
        switch.vms[1].send(*broadcasts(1, 5, 5))
        switch.settle()
        assert newcomer.received() == broadcasts(1, 5, 5)
        assert switch.counters(2)["flood_lost"] == 0


def test_newcomer_is_heard_from_its_first_word() -> None:
    """A newcomer may send before any other port knows it."""
    with MiniSwitch() as switch:
        older = switch.add(1, "stream")
        switch.add(2, "stream", introduce=False)
        switch.vms[2].send(*broadcasts(2, 0, 5))
        switch.settle()
        switch.introduce(2, 1)
        switch.vms[2].send(*broadcasts(2, 5, 5))
        switch.settle()
        switch.introduce(1, 2)
        switch.settle()
        assert older.received() == broadcasts(2, 0, 10)


def test_newcomer_that_said_more_than_its_ring_holds() -> None:
    with MiniSwitch() as switch:
        older = switch.add(1, "stream")
        switch.add(2, "stream", introduce=False)
        for first in range(0, 500, 50):
            switch.vms[2].send(*broadcasts(2, first, 50))
            switch.settle()
        switch.introduce(1, 2)
        got = switch.read_out(older)
        assert len(got) + switch.counters(1)["flood_lost"] == 500


@pytest.mark.parametrize("kind", KINDS)
def test_announcement_ends_the_flooding_of_a_station_that_only_listens(kind: str) -> None:
    with MiniSwitch() as switch:
        for port in (1, 2, 3, 4):
            switch.add(port, kind)
        switch.greet(1)
        switch.vms[2].send(frame(mac(1), mac(2)))  # only ports 1 and 2 see this
        switch.settle()
        switch.vms[1].received()
        unicast = [frame(mac(2), mac(3), bytes((number,))) for number in range(10)]
        for each in unicast:
            switch.vms[3].send(each)
            switch.settle()
        assert switch.vms[2].received() == unicast
        assert switch.vms[1].received() == switch.vms[4].received() == unicast[:1]
        assert switch.counters(3)["flooded"] == 1
        assert all(mac(2) in switch.macs_behind(port, 2) for port in (1, 3, 4))
        assert switch.counters(2)["flooded"] == 0


def test_announcements_are_neither_delivered_nor_numbered() -> None:
    with MiniSwitch() as switch:
        for port in (1, 2, 3):
            switch.add(port, "dgram")
        switch.greet(1)
        for station in range(10, 40):
            switch.vms[2].send(frame(mac(1), mac(station)))
            switch.settle()
            switch.vms[3].send(frame(mac(station), mac(3)))
            switch.settle()
        switch.vms[2].send(*broadcasts(2, 0, 3))
        switch.settle()
        assert switch.vms[3].received() == broadcasts(2, 0, 3)
        assert switch.counters(3)["flood_lost"] == 0


def test_unknown_unicast_can_be_kept_from_a_port() -> None:
    with MiniSwitch() as switch:
        for port in (1, 2, 3):
            switch.add(port, "stream")
        switch.greet(1)
        switch.engines[2].set_flood_unknown(False)
        switch.vms[2].send(frame(mac(1), mac(2)))
        switch.settle()
        to_nobody, to_two = frame(mac(77), mac(3)), frame(mac(2), mac(3))
        switch.vms[3].send(to_nobody, to_two)
        switch.settle()
        assert switch.vms[2].received() == [to_two]
        assert switch.counters(2)["filtered"] == 1
        assert switch.vms[1].received()[-2:] == [to_nobody, to_two]


def test_turn_is_bounded_also_where_nothing_is_delivered() -> None:
    """A worker that only filters the floods of others must still serve its own VM."""
    with MiniSwitch() as switch:
        quiet = switch.add(1, "stream")
        switch.engines[1].set_flood_unknown(False)
        for port in range(2, 8):
            switch.add(port, "stream")
            for _ in range(4):
                switch.vms[port].send(*[frame(mac(99), mac(port), size=9014)] * 10)
                switch.engines[port].run(0)
        quiet.send(frame(BROADCAST, mac(1)))
        switch.engines[1].run(0)
        assert 0 < switch.counters(1)["filtered"] < 6 * 40
        assert switch.counters(1)["rx_frames"] == 1
        switch.settle()
        assert switch.counters(1)["filtered"] == 6 * 40


def test_flood_is_not_overtaken_by_later_unicast() -> None:
    """A frame that was flooded before its destination was learned arrives before later unicast frames."""
    with MiniSwitch() as switch:
        for port in (1, 3):
            switch.add(port, "stream")
        slow = switch.add(2, "stream", buffer=4096)
        switch.greet(1, 2)
        slow.send(frame(mac(1), mac(20)))  # a second station behind port 2, unknown to port 3
        switch.settle()
        sent = [frame(mac(2), mac(3), bytes((number,)), 9014) for number in range(3)]
        switch.vms[3].send(*sent)  # cut inside of a run
        switch.settle()
        before = frame(mac(20), mac(3), b"flooded")
        switch.vms[3].send(before)
        switch.settle()
        slow.send(frame(BROADCAST, mac(20)))
        switch.settle()
        after = frame(mac(20), mac(3), b"by the ring")
        switch.vms[3].send(after)
        switch.settle()
        got = switch.read_out(slow)
        assert sorted(got) == sorted([*sent, before, after])
        assert got.index(before) < got.index(after)


def test_only_the_owner_may_write() -> None:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        fd = switch.floods[1]
        with pytest.raises(PermissionError):
            mmap.mmap(fd, FLOOD_BYTES)
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        mmap.mmap(fd, FLOOD_BYTES, prot=mmap.PROT_READ).close()


@pytest.mark.parametrize(("port", "epoch"), [(3, 1), (2, 9)])
def test_flood_ring_of_another_life_is_refused(port: int, epoch: int) -> None:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        switch.add(2, "stream")
        foreign = _core.flood_create(FLOOD_BYTES, port, epoch)
        try:
            for claimed in (switch.epochs[2], 9):
                with pytest.raises(OSError, match="Stale"):
                    switch.engines[1].attach_flood(2, claimed, foreign, from_start=False)
        finally:
            os.close(foreign)


class Mover:
    """Port 1 floods to two others, and can move to another ring."""

    def __init__(self, switch: MiniSwitch, kind: str, buffer: int = 1 << 20) -> None:
        self.switch = switch
        self.vms = [switch.add(port, kind, buffer=buffer) for port in (1, 2, 3)]
        self.sent: list[bytes] = []
        switch.greet(1, 2, 3)

    def flood(self, count: int = 20) -> None:
        burst = broadcasts(1, len(self.sent), count)
        self.sent += burst
        self.vms[0].send(*burst)

    def move(self) -> int:
        ring = _core.flood_create(FLOOD_BYTES, 1, self.switch.epochs[1])
        self.switch.engines[1].move_floods(ring)
        return ring

    def follow(self, port: int, ring: int) -> None:
        self.switch.engines[port].attach_flood(1, self.switch.epochs[1], ring, from_start=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_move_to_another_ring_loses_nothing_and_the_old_one_falls_silent(kind: str) -> None:
    with MiniSwitch() as switch:
        mover = Mover(switch, kind)
        got: dict[int, list[bytes]] = {2: [], 3: []}
        for turn in range(4):
            mover.flood()
            switch.engines[1].run(0.0)  # written, and read by nobody yet
            old = switch.floods[1]
            ring = mover.move()
            switch.floods[1] = ring
            mover.flood()
            switch.engines[1].run(0.0)
            silent = os.pread(old, FLOOD_BYTES, 65536)
            mover.follow(2, ring)
            mover.flood()
            switch.settle()
            if turn % 2:
                assert switch.engines[3].floods_are_over(1)
            mover.follow(3, ring)
            switch.settle()
            assert not switch.engines[3].floods_are_over(1)
            assert os.pread(old, FLOOD_BYTES, 65536) == silent
            os.close(old)
            for port in got:
                got[port] += switch.vms[port].received()
        assert got[2] == got[3] == mover.sent
        assert [switch.counters(port)["flood_lost"] for port in (2, 3)] == [0, 0]
        assert [switch.counters(port)["stale_ring"] for port in (2, 3)] == [0, 0]


def test_what_a_vm_does_not_take_from_the_old_ring_is_counted() -> None:
    with MiniSwitch() as switch:
        mover = Mover(switch, "seqpacket", buffer=8192)
        for _ in range(30):
            mover.flood()
            switch.settle()  # port 2's VM does not read
            switch.vms[3].received()
        mover.flood()
        switch.engines[1].run(0.0)
        ring = mover.move()
        mover.follow(2, ring)
        mover.follow(3, ring)
        os.close(ring)
        heard: list[bytes] = []
        while more := switch.vms[2].received():
            heard += more
            switch.settle()
        counters = switch.counters(2)
        assert counters["stale_ring"] >= 20
        assert len(heard) + counters["stale_ring"] + counters["flood_lost"] == len(mover.sent)


def test_a_ring_that_is_no_flood_ring_of_ours_leaves_the_old_one() -> None:
    with MiniSwitch() as switch:
        mover = Mover(switch, "stream")
        for port, epoch in ((2, switch.epochs[1]), (1, 1 << 40)):
            ring = _core.flood_create(FLOOD_BYTES, port, epoch)
            with pytest.raises(OSError, match="tale"):
                switch.engines[1].move_floods(ring)
            os.close(ring)
        mover.flood()
        switch.settle()
        assert switch.vms[2].received() == mover.sent

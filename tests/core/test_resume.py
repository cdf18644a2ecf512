"""Streams that another engine goes on with: only where both ends know the next byte to begin a frame."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder import _core
from tests.helpers.core.mini_switch import BROADCAST, LENGTHS, MiniSwitch, frame, mac, record

SIZES = (14, 60, 61, 1514, 9014)
ACTIONS = {"say": 4, "hear": 4, "sip": 6, "turn": 3, "restart": 3}


def numbered(dst: int, src: int, number: int, size: int) -> bytes:
    return (mac(dst) + mac(src) + number.to_bytes(4, "big") + bytes(size))[: max(size, 16)]


class Play:
    """A VM on a stream (port 1) that speaks and reads in pieces, and one that keeps frames apart (port 2)."""

    def __init__(self, kind: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.kind = kind
        self.switch = MiniSwitch()
        self.vm = self.switch.add(1, kind, buffer=4608)
        self.other = self.switch.add(2, "seqpacket")
        for port in (1, 2):
            self.switch.vms[port].send(frame(BROADCAST, mac(port)))
            self.switch.settle()
        self.vm.received()
        self.other.received()
        self.unsent = b""
        self.said: list[bytes] = []
        self.told: list[bytes] = []
        self.heard: list[bytes] = []
        self.restarts = 0

    @property
    def resumable(self) -> bool:
        return _core.StatsPage(self.switch.stats[1]).at_boundary()

    def say(self) -> None:
        if not self.unsent:
            self.said.append(numbered(2, 1, len(self.said), self.random.choice(SIZES)))
            self.unsent = record(self.said[-1], self.kind)
        sent = self.vm.sock.send(self.unsent[: self.random.randint(1, len(self.unsent))])
        self.unsent = self.unsent[sent:]

    def hear(self) -> None:
        for _ in range(self.random.randint(1, 8)):
            self.told.append(numbered(1, 2, len(self.told), self.random.choice(SIZES)))
            self.other.send(self.told[-1])
            self.switch.turn()

    def sip(self, most: int = 0) -> None:
        self.heard += self.vm.read(most or self.random.choice((1, 2, 3, 70, 1000, 1 << 18))) or []
        self.switch.turn()

    def turn(self) -> None:
        self.switch.turn()

    def restart(self) -> None:
        if self.resumable:
            self.switch.restart(1)
            self.switch.settle()
            self.restarts += 1

    def run(self, steps: int) -> None:
        for action in self.random.choices(list(ACTIONS), list(ACTIONS.values()), k=steps):
            getattr(self, action)()
            if self.resumable and not self.switch.counters(1)["egress_bytes"]:
                self.heard += self.vm.received()
                assert not self.vm.mid_frame, "it is said to stand between two frames"
        self.vm.sock.send(self.unsent)
        self.switch.settle()
        while (more := self.vm.read()) is not None:
            self.heard += more
            self.switch.settle()


@settings(max_examples=60)
@given(kind=st.sampled_from(tuple(LENGTHS)), seed=st.integers(0, 2**32))
def test_no_stream_is_ever_gone_on_with_inside_of_a_frame(kind: str, seed: int) -> None:
    play = Play(kind, seed)
    try:
        play.run(80)
        assert play.switch.engines[1].link_error == ""
        assert play.other.received() == play.said
        assert not play.vm.mid_frame
        numbers = [int.from_bytes(each[12:16], "big") for each in play.heard]
        assert play.heard == [play.told[number] for number in numbers]
        assert numbers == sorted(set(numbers))
        if not play.restarts:
            assert play.heard == play.told
    finally:
        play.switch.close()


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_link_can_go_on_between_frames(kind: str) -> None:
    play = Play(kind, 0)
    try:
        for number in range(20):
            play.vm.send(numbered(2, 1, number, 60))
            play.other.send(numbered(1, 2, number, 60))
            play.switch.settle()
            assert play.resumable
            play.restart()
            assert play.other.received() == [numbered(2, 1, number, 60)]
            assert play.vm.received() == [numbered(1, 2, number, 60)]
        assert play.restarts == 20
    finally:
        play.switch.close()


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_frame_of_which_a_part_was_read_or_written_is_in_doubt(kind: str) -> None:
    play = Play(kind, 0)
    try:
        data = record(numbered(2, 1, 0, 60), kind)
        for cut in range(1, len(data)):
            play.vm.sock.send(data[:cut])
            play.switch.settle()
            assert not play.resumable, cut
            play.vm.sock.send(data[cut:])
            play.switch.settle()
            assert play.resumable, cut
        play.other.send(numbered(1, 2, 0, 60_000))  # more than its socket holds
        play.switch.settle()
        assert not play.resumable
        play.vm.received()
        assert play.vm.mid_frame
    finally:
        play.switch.close()

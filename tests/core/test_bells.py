"""Doorbells: which sleeper is rung, and how often."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

from forwarder import _core
from forwarder.channel import close_all
from tests.helpers.core.bell_listener import BellListener
from tests.helpers.core.mini_switch import BROADCAST, FLOOD_BYTES, RING_BYTES, MiniSwitch, frame, mac
from tests.helpers.core.scribble import FloodScribble
from tests.helpers.guests.waiting import wait_for

ONE, OTHER = 9, 10
EPOCH = 99
OWED_S = 1.0


class Neighbours:
    """Port 1 has an engine; its peers are nothing but their memory, so that a test says when they sleep."""

    def __init__(self, switch: MiniSwitch) -> None:
        self.switch, self.engine = switch, switch.engines[1]
        self.words: dict[int, FloodScribble] = {}
        self.bells: dict[int, BellListener] = {}
        self._flood_bell = BellListener(switch.flood_bell)
        self._fds: list[int] = []

    def join(self, port: int, epoch: int = EPOCH, *, ring: bool = True, flood: bool = True) -> None:
        self.engine.peer_join(port, epoch, EPOCH)
        if flood:
            fd = _core.flood_create(FLOOD_BYTES, port, epoch)
            self.words[port] = FloodScribble(fd, FLOOD_BYTES)
            self.engine.attach_flood(port, epoch, fd, from_start=True)
            self._fds.append(fd)
        if ring:
            fds = _core.ring_create(RING_BYTES, 1, self.switch.epochs[1], port, epoch)
            bell = _core.doorbell_create()
            self.bells[port] = BellListener(bell)
            self.engine.attach_tx(port, epoch, *fds, os.dup(bell))
            self._fds += (*fds, bell)
        self.engine.pin(port, [mac(port)])

    def sleep(self, port: int, number: int) -> None:
        self.words[port]["sleep"] = number

    def send(self, dst: bytes) -> int:
        """Let port 1's VM send; returns how many bells its engine has rung for that."""
        before = self.switch.counters(1)
        self.switch.vms[1].send(frame(dst, mac(1)))
        while self.switch.counters(1)["rx_frames"] == before["rx_frames"]:
            self.engine.run(0)
        return self.switch.counters(1)["doorbells"] - before["doorbells"]

    def flood_bell_rang(self) -> bool:
        """Whether it has since the last call."""
        return self._flood_bell.rang()

    def close(self) -> None:
        close_all(self._fds)
        for each in (self._flood_bell, *self.bells.values()):
            each.__exit__()


@pytest.fixture
def peers() -> Iterator[Neighbours]:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        made = Neighbours(switch)
        made.join(ONE)
        made.engine.run(0)
        made.flood_bell_rang()
        yield made
        made.close()


@pytest.mark.parametrize("dst", [mac(ONE), BROADCAST], ids=["ring", "flood"])
def test_a_sleep_is_rung_for_once(peers: Neighbours, dst: bytes) -> None:
    for number, rung in ((0, 0), (1, 1), (1, 0), (1, 0), (2, 0), (3, 1), (3, 0), (4, 0), (7, 1)):
        peers.sleep(ONE, number)
        assert peers.send(dst) == rung, number


def test_a_sleep_that_was_rung_for_by_one_bell_is_not_by_the_other(peers: Neighbours) -> None:
    peers.sleep(ONE, 1)
    assert peers.send(mac(ONE)) == 1
    assert peers.send(BROADCAST) == 0
    peers.sleep(ONE, 3)
    assert peers.send(BROADCAST) == 1
    assert peers.send(mac(ONE)) == 0


def test_each_way_has_its_own_bell(peers: Neighbours) -> None:
    peers.sleep(ONE, 1)
    peers.send(mac(ONE))
    assert peers.bells[ONE].rang()
    assert not peers.flood_bell_rang()
    peers.sleep(ONE, 3)
    peers.send(BROADCAST)
    assert peers.flood_bell_rang()
    assert not peers.bells[ONE].rang()


@pytest.mark.parametrize("abuse", ["empty", "full"])
def test_a_bell_that_a_ringer_has_read_empty_or_written_full_rings(peers: Neighbours, abuse: str) -> None:
    bell = peers.switch.flood_bell
    for number in range(1, 21, 2):
        if abuse == "empty":
            for _ in range(100):
                os.eventfd_read(bell)
        else:
            for shift in range(63, -1, -1):
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_write(bell, 1 << shift)
        peers.flood_bell_rang()
        peers.sleep(ONE, number)
        assert peers.send(BROADCAST) == 1
        if abuse == "empty":
            os.eventfd_read(bell)  # before its listener looks
        assert peers.flood_bell_rang()


def test_one_bell_wakes_all_that_sleep(peers: Neighbours) -> None:
    """Every sleeper counts as rung, not only the first one."""
    peers.join(OTHER)
    for port in (ONE, OTHER):
        peers.sleep(port, 1)
    assert [peers.send(BROADCAST) for _ in range(3)] == [1, 0, 0]
    peers.sleep(OTHER, 3)
    assert [peers.send(BROADCAST) for _ in range(3)] == [1, 0, 0]


def test_a_peer_whose_sleep_word_is_not_known_yet_is_rung(peers: Neighbours) -> None:
    """The peer may sleep, and nothing else would wake it: each burst rings once."""
    peers.join(ONE, EPOCH + 1, flood=False)
    peers.engine.run(0)
    assert [peers.send(BROADCAST) for _ in range(3)] == [1, 1, 1]
    assert [peers.send(mac(ONE)) for _ in range(3)] == [1, 1, 1]


def test_a_sleep_of_an_earlier_epoch_is_rung_for_again(peers: Neighbours) -> None:
    """Sleep words begin anew with each worker."""
    peers.sleep(ONE, 1)
    assert peers.send(mac(ONE)) == 1
    peers.join(ONE, EPOCH + 1)
    peers.sleep(ONE, 1)
    assert peers.send(mac(ONE)) == 1


def test_a_peer_that_may_have_slept_through_a_flood_is_rung_for_once(peers: Neighbours) -> None:
    """The peer may have read our floods before we knew its sleep word."""
    peers.send(BROADCAST)
    peers.join(OTHER)
    for rang in (True, False, False):
        peers.engine.run(0)
        assert peers.flood_bell_rang() == rang


def test_a_peer_that_comes_long_after_a_flood_is_not_rung_for(peers: Neighbours) -> None:
    peers.send(BROADCAST)
    flooded = time.monotonic()
    wait_for(lambda: time.monotonic() > flooded + OWED_S, "the flood to be old")
    peers.join(OTHER)
    peers.engine.run(0)
    assert not peers.flood_bell_rang()

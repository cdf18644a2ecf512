"""Doorbells: which sleeper is rung, and how often."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from forwarder import _core
from forwarder.channel import close_all
from tests.helpers.mini_switch import BROADCAST, FLOOD_BYTES, RING_BYTES, MiniSwitch, frame, mac
from tests.helpers.scribble import FloodScribble

NEIGHBOUR, EPOCH = 9, 99


class Neighbour(NamedTuple):
    """A port that is nothing but its memory, so that a test says when it sleeps."""

    switch: MiniSwitch
    flood: FloodScribble
    bell: int

    def sleep(self, number: int) -> None:
        self.flood["sleep"] = number

    def send(self, dst: bytes) -> int:
        """Let port 1's VM send to it; returns how many bells its engine has rung for that."""
        before = self.switch.counters(1)
        self.switch.vms[1].send(frame(dst, mac(1)))
        while self.switch.counters(1)["rx_frames"] == before["rx_frames"]:
            self.switch.engines[1].run(0)
        return self.switch.counters(1)["doorbells"] - before["doorbells"]


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        flood = _core.flood_create(FLOOD_BYTES, NEIGHBOUR, EPOCH)
        ring = _core.ring_create(RING_BYTES, 1, switch.epochs[1], NEIGHBOUR, EPOCH)
        bell = _core.doorbell_create()
        scribble = FloodScribble(flood, FLOOD_BYTES)
        engine = switch.engines[1]
        engine.peer_join(NEIGHBOUR, EPOCH, EPOCH)
        engine.attach_flood(NEIGHBOUR, EPOCH, flood, from_start=True)
        engine.attach_tx(NEIGHBOUR, EPOCH, *ring, os.dup(bell))
        engine.pin(NEIGHBOUR, [mac(NEIGHBOUR)])
        yield Neighbour(switch, scribble, bell)
        close_all([flood, *ring, bell])


@pytest.mark.parametrize("dst", [mac(NEIGHBOUR), BROADCAST], ids=["ring", "flood"])
def test_a_sleep_is_rung_for_once(neighbour: Neighbour, dst: bytes) -> None:
    for number, rung in ((0, 0), (1, 1), (1, 0), (1, 0), (2, 0), (3, 1), (3, 0), (4, 0), (7, 1)):
        neighbour.sleep(number)
        assert neighbour.send(dst) == rung, number


def test_a_sleep_that_was_rung_for_by_one_bell_is_not_by_the_other(neighbour: Neighbour) -> None:
    neighbour.sleep(1)
    assert neighbour.send(mac(NEIGHBOUR)) == 1
    assert neighbour.send(BROADCAST) == 0
    neighbour.sleep(3)
    assert neighbour.send(BROADCAST) == 1
    assert neighbour.send(mac(NEIGHBOUR)) == 0


def test_each_way_has_its_own_bell(neighbour: Neighbour) -> None:
    neighbour.sleep(1)
    neighbour.send(mac(NEIGHBOUR))
    assert os.eventfd_read(neighbour.bell) == 1
    with pytest.raises(BlockingIOError):
        os.eventfd_read(neighbour.switch.flood_bell)
    neighbour.sleep(3)
    neighbour.send(BROADCAST)
    assert os.eventfd_read(neighbour.switch.flood_bell) == 1
    with pytest.raises(BlockingIOError):
        os.eventfd_read(neighbour.bell)


def test_a_peer_whose_sleep_word_is_not_known_yet_is_rung(neighbour: Neighbour) -> None:
    """It may sleep, and nothing else would wake it."""
    switch = neighbour.switch
    switch.engines[1].peer_join(NEIGHBOUR, EPOCH + 1, EPOCH)
    assert [neighbour.send(BROADCAST) for _ in range(3)] == [1, 1, 1]


def test_a_held_flood_bell_holds_no_other(neighbour: Neighbour) -> None:
    neighbour.sleep(1)
    neighbour.switch.engines[1].hold_flood_bell()
    assert neighbour.send(BROADCAST) == 0
    assert neighbour.send(mac(NEIGHBOUR)) == 1

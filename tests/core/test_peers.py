"""Peers that come and go: an engine gives back everything that it held for one."""

from __future__ import annotations

import pytest

from forwarder import _core
from forwarder.channel import close_all
from tests.helpers.core.mini_switch import BROADCAST, FLOOD_BYTES, RING_BYTES, MiniSwitch, frame, mac
from tests.helpers.descriptors import open_descriptors

PEERS = range(2, 102)


def mappings() -> int:
    with open("/proc/self/maps") as maps:
        return sum("bulkhead-" in line for line in maps)


def join(switch: MiniSwitch, port: int, epoch: int) -> None:
    """A peer with all that it can have: flood ring, a ring each way, and its doorbell."""
    engine, own = switch.engines[1], switch.epochs[1]
    flood, bell = _core.flood_create(FLOOD_BYTES, port, epoch), _core.doorbell_create()
    there = _core.ring_create(RING_BYTES, 1, own, port, epoch)
    back = _core.ring_create(RING_BYTES, port, epoch, 1, own)
    engine.peer_join(port, epoch, epoch)
    engine.attach_flood(port, epoch, flood, from_start=True)
    engine.attach_tx(port, epoch, *there, bell)
    engine.attach_rx(port, epoch, *back)
    close_all([flood, *there, *back])


@pytest.fixture
def switch():
    with MiniSwitch() as mini:
        mini.add(1, "stream")
        yield mini


def test_a_hundred_peers_leave_nothing_behind(switch):
    before = open_descriptors(), mappings()
    for port in PEERS:
        join(switch, port, 1000 + port)
    assert open_descriptors() == before[0] + len(PEERS)  # the doorbells
    for port in PEERS:
        switch.engines[1].peer_leave(port)
    assert (open_descriptors(), mappings()) == before


def test_a_hundred_lives_of_one_peer_are_one_at_a_time(switch):
    join(switch, 2, 1000)
    before = open_descriptors(), mappings()
    for epoch in range(1001, 1101):
        join(switch, 2, epoch)
    assert (open_descriptors(), mappings()) == before


def test_a_ring_that_is_given_again_takes_the_place_of_the_last_one(switch):
    join(switch, 2, 1000)
    before = open_descriptors(), mappings()
    for _ in range(100):
        join(switch, 2, 1000)
    assert (open_descriptors(), mappings()) == before


def test_an_engine_that_is_closed_gives_back_its_peers(switch):
    stays = open_descriptors(), mappings()
    for port in PEERS:
        join(switch, port, 1000 + port)
    switch.engines[1].close()
    assert open_descriptors() == stays[0] - 1  # its epoll
    assert mappings() < stays[1]


def test_bytes_are_counted_for_the_peer_that_they_are_for(switch):
    """Floods count for no peer, and a new VM with the same port number begins at zero."""
    switch.add(2, "stream").send(frame(BROADCAST, mac(2)))
    switch.settle()
    page = _core.StatsPage(switch.stats[1])
    assert page.sent() == []
    for payload in (b"", b"x" * 500):
        switch.vms[1].send(frame(mac(2), mac(1), payload))
    switch.settle()
    assert page.sent() == [(2, sum(len(frame(mac(2), mac(1), payload)) for payload in (b"", b"x" * 500)))]
    switch.engines[1].peer_leave(2)
    switch.engines[1].peer_join(2, 77, 77)
    assert page.sent() == []


def test_frames_that_wait_for_a_ring_go_with_the_peer(switch):
    """The pending queue is private memory, so only the losses show its frames."""
    switch.add(2, "stream").send(frame(BROADCAST, mac(2)))
    switch.settle()
    switch.rings_given = False
    for _ in range(20):
        switch.vms[1].send(frame(mac(2), mac(1)))
    switch.settle()
    switch.engines[1].peer_leave(2)
    assert [row[2] for row in _core.StatsPage(switch.stats[1]).losses()] == [20]

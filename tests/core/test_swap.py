"""Losses when a ring is given up: each frame that will not be read is counted once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forwarder import _core
from forwarder.channel import close_all
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, frame, mac


@pytest.fixture
def switch() -> Iterator[MiniSwitch]:
    """Two ports that know each other's address and have a ring from the first to the second."""
    mini = MiniSwitch()
    for port in (1, 2):
        mini.add(port, "seqpacket").send(frame(BROADCAST, mac(port)))
        mini.settle()
    mini.vms[1].send(frame(mac(2), mac(1)))
    mini.settle()
    assert len(mini.vms[2].received()) == 1
    yield mini
    mini.close()


def send_to_the_dead(mini: MiniSwitch, frames: int) -> None:
    """Port 2's worker takes nothing any more, and port 1 goes on sending to it."""
    before = mini.counters(1)["rx_frames"]
    for number in range(frames):
        mini.vms[1].send(frame(mac(2), mac(1), b"%d" % number))
    while mini.counters(1)["rx_frames"] < before + frames:
        mini.engines[1].run(0)


def towards(mini: MiniSwitch) -> int:
    return sum(lost for port, _, lost, _ in _core.StatsPage(mini.stats[1]).losses() if port == 2)


def test_frames_that_a_dead_worker_has_not_taken_are_lost_towards_it(switch: MiniSwitch) -> None:
    send_to_the_dead(switch, 100)
    assert towards(switch) == 0
    switch.engines[1].peer_join(2, 99, 2)
    assert towards(switch) == 100
    assert switch.counters(2)["tx_frames"] == 1


def test_the_same_where_the_port_leaves(switch: MiniSwitch) -> None:
    send_to_the_dead(switch, 7)
    switch.engines[1].peer_leave(2)
    assert towards(switch) == 7


def test_frames_in_the_pen_and_frames_in_the_ring_count_once_each(switch: MiniSwitch) -> None:
    switch.rings_given = False
    switch.engines[1].peer_join(2, 98, 2)
    send_to_the_dead(switch, 5)
    switch.engines[1].peer_join(2, 99, 2)
    assert towards(switch) == 5


def test_a_ring_that_both_ends_change_for_another_loses_each_frame_once(switch: MiniSwitch) -> None:
    """A ring asked for twice is given twice; the reader changes first, and the writer fills the old one."""
    send_to_the_dead(switch, 10)
    fds = _core.ring_create(1 << 20, 1, switch.epochs[1], 2, switch.epochs[2])
    switch.engines[2].attach_rx(1, switch.epochs[1], *fds)
    assert switch.counters(2)["stale_ring"] == 0  # published at the next turn
    switch.engines[2].run(0)
    assert switch.counters(2)["stale_ring"] == 10
    send_to_the_dead(switch, 3)
    switch.engines[1].attach_tx(2, switch.epochs[2], *fds, _core.doorbell_create())
    close_all(fds)
    assert towards(switch) == 3
    switch.vms[1].send(frame(mac(2), mac(1), b"after"))
    switch.settle()
    assert switch.vms[2].received() == [frame(mac(2), mac(1), b"after")]


def test_a_stream_that_no_worker_has_touched_can_be_gone_on_with() -> None:
    assert _core.StatsPage(_core.stats_page_create()).at_boundary()

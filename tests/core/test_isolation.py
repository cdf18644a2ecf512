"""Ports that may not talk: nothing passes, in either direction and by either way, and it is counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac

UNKNOWN = mac(99)


@pytest.fixture(params=KINDS)
def switch(request: pytest.FixtureRequest) -> Iterator[MiniSwitch]:
    """Ports 1, 2 and 3, which have all heard each other."""
    with MiniSwitch() as mini:
        for port in (1, 2, 3):
            mini.add(port, request.param)
        mini.greet()
        yield mini


def part(switch: MiniSwitch, one: int, other: int, allowed: bool = False) -> None:
    switch.engines[one].set_reach(other, allowed)
    switch.engines[other].set_reach(one, allowed)


def test_unicast_to_a_port_out_of_reach_is_dropped_and_counted(switch: MiniSwitch) -> None:
    part(switch, 1, 2)
    allowed = [frame(mac(3), mac(1), bytes((number,))) for number in range(5)]
    for each in allowed:
        switch.vms[1].send(frame(mac(2), mac(1)), each)
        switch.settle()
    assert switch.vms[2].received() == []
    assert switch.vms[3].received() == allowed
    assert switch.counters(1)["isolated"] == 5
    assert switch.counters(1)["flooded"] == 1  # the greeting
    assert switch.counters(2)["isolated"] == switch.counters(3)["isolated"] == 0


def test_an_existing_ring_to_an_isolated_port_carries_nothing(switch: MiniSwitch) -> None:
    before = frame(mac(2), mac(1), b"before")
    switch.vms[1].send(before)
    switch.settle()
    part(switch, 1, 2)
    switch.vms[1].send(frame(mac(2), mac(1), b"meanwhile"))
    switch.settle()
    part(switch, 1, 2, allowed=True)
    after = frame(mac(2), mac(1), b"after")
    switch.vms[1].send(after)
    switch.settle()
    assert switch.vms[2].received() == [before, after]
    assert switch.counters(1)["isolated"] == 1


@pytest.mark.parametrize("dst", [BROADCAST, bytes.fromhex("333300000001"), UNKNOWN])
def test_floods_of_a_port_out_of_reach_are_not_even_read(switch: MiniSwitch, dst: bytes) -> None:
    part(switch, 1, 2)
    flood = frame(dst, mac(1))
    switch.vms[1].send(flood)
    switch.settle()
    assert switch.vms[2].received() == []
    assert switch.vms[3].received() == [flood]
    part(switch, 1, 2, allowed=True)
    switch.introduce(2, 1)
    again = frame(BROADCAST, mac(1), b"again")
    switch.vms[1].send(again)
    switch.settle()
    assert switch.vms[2].received() == [again]


def test_a_port_out_of_reach_can_be_given_no_ring_of_any_kind(switch: MiniSwitch) -> None:
    """A hostile worker may have got a ring in any way."""
    part(switch, 1, 2)
    with pytest.raises(PermissionError):
        switch.connect(1, 2)
    with pytest.raises(PermissionError):
        switch.connect(2, 1)
    epoch = switch.epochs[1]
    with pytest.raises(PermissionError):
        switch.engines[2].attach_flood(1, epoch, switch.floods[1], from_start=True)


def test_frames_in_a_ring_from_a_port_that_goes_out_of_reach_are_not_delivered(switch: MiniSwitch) -> None:
    switch.vms[1].send(frame(mac(2), mac(1)))
    switch.settle()
    switch.vms[2].received()
    switch.vms[1].send(frame(mac(2), mac(1), b"too late"))
    switch.engines[1].run(0)
    assert switch.engines[2].set_reach(1, False)
    assert not switch.engines[2].set_reach(1, False), "that is no change"
    switch.settle()
    assert switch.vms[2].received() == []
    assert switch.counters(2)["stale_ring"] == 1


@pytest.mark.parametrize("dst", [BROADCAST, mac(2)])
def test_an_address_that_is_pinned_elsewhere_is_not_believed_of_a_neighbour(
    switch: MiniSwitch, dst: bytes
) -> None:
    """The sender's worker should refuse it, but may not know the pin yet, or may be hostile."""
    for each in (mac(2), mac(1)):
        switch.vms[1].send(frame(each, mac(1)))
    switch.settle()
    switch.vms[2].received()
    switch.engines[2].pin(3, [mac(3), mac(1)])
    switch.vms[1].send(frame(dst, mac(1), b"spoofed"))
    switch.settle()
    assert switch.vms[2].received() == []
    assert switch.counters(2)["filtered"] == 1
    switch.engines[2].pin(3, [mac(3)])
    good = frame(dst, mac(1), b"good")
    switch.vms[1].send(good)
    switch.settle()
    assert switch.vms[2].received() == [good]


def test_a_ring_that_is_idle_is_given_up_and_the_next_frame_gets_another(switch: MiniSwitch) -> None:
    switch.vms[1].send(frame(mac(2), mac(1)))
    switch.settle()
    assert switch.engines[1].idle_rings() == [], "it was written to since"
    assert switch.engines[1].idle_rings() == [2]
    assert switch.engines[1].detach_tx(2)
    switch.engines[2].detach_rx(1)
    assert not switch.engines[1].detach_tx(2)
    assert switch.engines[1].idle_rings() == []
    again = frame(mac(2), mac(1), b"again")
    switch.vms[2].received()
    switch.vms[1].send(again)
    switch.settle()
    assert switch.vms[2].received() == [again]
    assert switch.counters(2)["stale_ring"] == 0


def test_a_ring_that_its_consumer_has_not_emptied_is_kept(switch: MiniSwitch) -> None:
    switch.vms[1].send(frame(mac(2), mac(1)))
    switch.settle()
    switch.vms[1].send(frame(mac(2), mac(1), b"waits"))
    switch.engines[1].run(0)
    switch.engines[1].idle_rings()
    assert switch.engines[1].idle_rings() == []
    assert not switch.engines[1].detach_tx(2)


def test_nothing_is_learned_from_a_port_out_of_reach(switch: MiniSwitch) -> None:
    """Otherwise it could take the address of another port's station."""
    part(switch, 1, 2)
    switch.vms[1].send(frame(BROADCAST, mac(3)))
    switch.settle()
    assert switch.macs_behind(2, 1) == {mac(1)}
    assert mac(3) in switch.macs_behind(2, 3)


def test_a_port_that_joins_is_in_reach_by_default(switch: MiniSwitch) -> None:
    part(switch, 1, 2)
    switch.restart(2)  # the same port for its neighbours, and its own engine knows nothing yet
    switch.vms[2].send(frame(BROADCAST, mac(2)))
    switch.settle()
    assert switch.vms[1].received() == []
    newcomer = switch.add(4, "stream")
    switch.vms[1].send(flood := frame(BROADCAST, mac(1)))
    switch.settle()
    assert newcomer.received() == [flood]

"""Whose an address is: the MAC table of a real worker's stats page, and ports that come and go."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gateway.ports import Port, Ports
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, frame, mac

GATEWAY = 3


@pytest.fixture
def switch() -> Iterator[MiniSwitch]:
    """Three ports; the worker of the gateway's port has heard a frame of each other one."""
    with MiniSwitch() as made:
        for number in (1, 2, GATEWAY):
            made.add(number, "stream")
        for number in (1, 2):
            made.vms[number].send(frame(BROADCAST, mac(number)))
        made.settle()
        yield made


@pytest.fixture
def ports(switch: MiniSwitch) -> Ports:
    """The ports of ``switch``, as the gateway has heard of them."""
    made = Ports()
    made.map(os.open(f"/proc/self/fd/{switch.stats[GATEWAY]}", os.O_RDONLY))
    made.are([port(switch, 1), port(switch, 2)])
    return made


def port(switch: MiniSwitch, number: int) -> Port:
    return Port(number, switch.attachments[number])


def test_an_address_is_behind_the_port_that_it_was_heard_through(switch: MiniSwitch, ports: Ports) -> None:
    assert ports.of(mac(1)) == port(switch, 1)
    assert ports.of(mac(2)) == port(switch, 2)
    assert ports.of(mac(7)) is None
    with pytest.raises(ValueError, match="6 bytes"):
        ports.of(b"short")


def test_nothing_is_known_before_the_table_has_come() -> None:
    ports = Ports()
    ports.are([Port(1, 11)])
    assert ports.of(mac(1)) is None


def test_a_port_that_has_left_is_announced_once_and_owns_nothing(switch: MiniSwitch, ports: Ports) -> None:
    left: list[Port] = []
    ports.when_left(left.append)
    old = port(switch, 1)
    ports.left(old._replace(born=old.born + 1))
    assert left == []
    assert old in ports
    ports.left(old)
    ports.left(old)
    assert left == [old]
    assert old not in ports
    assert ports.of(mac(1)) is None


def test_a_port_whose_frame_comes_before_its_announcement_is_known(switch: MiniSwitch, ports: Ports) -> None:
    new = port(switch, 1)
    ports.left(new)
    asked: list[None] = []
    ports.catch_up = lambda: asked.append(None)
    assert ports.of(mac(1)) is None
    assert ports.of(mac(2)) == port(switch, 2)
    assert len(asked) == 1
    ports.catch_up = lambda: ports.joined(new)
    assert ports.of(mac(1)) == new


@pytest.mark.parametrize("address", [mac(1), mac(8)])
def test_a_frame_belongs_to_the_new_vm_of_a_number_before_any_announcement(
    switch: MiniSwitch, ports: Ports, address: bytes
) -> None:
    said: list[tuple[str, Port]] = []
    ports.when_left(lambda each: said.append(("left", each)))
    ports.when_joined(lambda each: said.append(("joined", each)))
    old = port(switch, 1)
    switch.remove(1)
    switch.add(1, "stream")
    switch.vms[1].send(frame(BROADCAST, address))
    switch.settle()
    new = port(switch, 1)
    assert new.born != old.born
    assert ports.of(address) is None  # rather than the port of another VM

    def announce() -> None:
        ports.left(old)
        ports.joined(new)

    ports.catch_up = announce
    assert ports.of(address) == new
    assert said == [("left", old), ("joined", new)]


def test_a_vm_whose_worker_was_replaced_is_the_same_port(switch: MiniSwitch, ports: Ports) -> None:
    asked: list[None] = []
    ports.catch_up = lambda: asked.append(None)
    switch.restart(1)
    switch.vms[1].send(frame(BROADCAST, mac(1)))
    switch.settle()
    assert ports.of(mac(1)) == port(switch, 1)
    assert asked == []


def test_addresses_that_a_port_uses_are_others_until_it_leaves(switch: MiniSwitch, ports: Ports) -> None:
    one, other = port(switch, 1), port(switch, 2)
    ports.use(one, [50, 51])
    ports.use(other, [51])
    ports.use(one._replace(born=one.born + 100), [60])  # has left already
    assert [ports.seen.is_used(each, other) for each in (50, 51, 60)] == [True, True, False]
    assert [ports.seen.is_used(each, one) for each in (50, 51)] == [False, True]
    ports.use(one, [52])
    assert [ports.seen.is_used(each, other) for each in (50, 51, 52)] == [False, False, True]
    ports.left(one)
    assert not any(ports.seen.is_used(each, other) for each in (50, 51, 52))

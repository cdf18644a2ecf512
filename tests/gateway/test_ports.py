"""Whose an address is: the MAC table of a real worker's block, and ports that come and go."""

from __future__ import annotations

import os

import pytest

from gateway.ports import Port, Ports
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, frame, mac


@pytest.fixture
def ports() -> Ports:
    """Three ports; the worker of port 3, which is the gateway's, has heard a frame of the first two each."""
    made = Ports()
    with MiniSwitch() as switch:
        for number in (1, 2, 3):
            switch.add(number, "stream")
        for number in (1, 2):
            switch.vms[number].send(frame(BROADCAST, mac(number)))
        switch.settle()
        made.map(os.open(f"/proc/self/fd/{switch.stats[3]}", os.O_RDONLY))
    made.are([Port(1, 11), Port(2, 22)])
    return made


def test_an_address_is_behind_the_port_that_it_was_heard_through(ports: Ports) -> None:
    assert ports.of(mac(1)) == Port(1, 11)
    assert ports.of(mac(2)) == Port(2, 22)
    assert ports.of(mac(7)) is None
    with pytest.raises(ValueError, match="6 bytes"):
        ports.of(b"short")


def test_nothing_is_known_before_the_table_has_come() -> None:
    ports = Ports()
    ports.are([Port(1, 11)])
    assert ports.of(mac(1)) is None


def test_a_port_that_has_left_is_announced_once_and_owns_nothing(ports: Ports) -> None:
    left: list[Port] = []
    ports.when_left(left.append)
    ports.left(Port(1, 10))
    assert left == []
    assert Port(1, 11) in ports
    ports.left(Port(1, 11))
    ports.left(Port(1, 11))
    assert left == [Port(1, 11)]
    assert Port(1, 11) not in ports
    assert ports.of(mac(1)) is None


def test_a_number_that_is_used_again_is_another_port(ports: Ports) -> None:
    ports.left(Port(1, 11))
    ports.joined(Port(1, 33))
    assert Port(1, 33) in ports
    assert Port(1, 11) not in ports
    assert ports.of(mac(1)) == Port(1, 33)


def test_a_port_whose_frame_comes_before_its_announcement_is_known(ports: Ports) -> None:
    ports.left(Port(1, 11))
    asked: list[None] = []
    ports.catch_up = lambda: asked.append(None)
    assert ports.of(mac(1)) is None
    assert ports.of(mac(2)) == Port(2, 22)
    assert len(asked) == 1
    ports.catch_up = lambda: ports.joined(Port(1, 33))
    assert ports.of(mac(1)) == Port(1, 33)

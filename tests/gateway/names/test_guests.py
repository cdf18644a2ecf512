"""Names of guests: an IPv6 address belongs to a name only if it was shown through the port of the lease."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from gateway.lan.announce import interface_id
from gateway.lan.frames import Trial
from gateway.leases.table import Leases
from gateway.names.guests import MOST_SELF_MADE, Guests
from gateway.ports import Port, Ports

PREFIX = bytes.fromhex("fd00000000000001")
WEB, OTHER = Port(2, 20), Port(3, 30)
MAC = bytes.fromhex("525400000001")
OWN = PREFIX + interface_id(MAC)


class World:
    """A guest called web with a lease, and another one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ports = Ports()
        self.ports.are([WEB, OTHER])
        self.leases = Leases(2, 250, {})
        lease = self.leases.bind(MAC, WEB, 2, 0.0)
        assert lease is not None
        self.leases.call(lease, "web")
        self.guests = Guests(self.leases, {}, self.ports, PREFIX)
        monkeypatch.setattr(self.ports, "of", lambda mac: WEB if mac == MAC else OTHER)

    def tries(self, port: Port, mac: bytes = MAC) -> None:
        self.guests.tried(Trial(mac, PREFIX + interface_id(mac)), port, 0.0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_name_has_the_address_that_its_guest_makes_of_its_mac_address(world: World) -> None:
    assert world.guests.addresses("web") == (IPv4Address(2),)
    world.tries(WEB)
    assert world.guests.addresses("web") == (IPv4Address(2), IPv6Address(OWN))
    assert world.guests.name(IPv6Address(OWN)) == "web"


def test_another_guest_cannot_give_a_name_an_address(world: World) -> None:
    world.tries(OTHER)
    assert world.guests.addresses("web") == (IPv4Address(2),)
    assert world.guests.name(IPv6Address(OWN)) == ""


def test_another_guest_with_many_addresses_takes_none_away(world: World) -> None:
    world.tries(WEB)
    for number in range(2 * MOST_SELF_MADE * 1024 // 16):
        world.tries(OTHER, (0x020000000000 + number).to_bytes(6, "big"))
    assert world.guests.addresses("web") == (IPv4Address(2), IPv6Address(OWN))


def test_nothing_is_kept_of_a_port_that_has_left(world: World) -> None:
    world.tries(WEB)
    world.ports.left(WEB)
    assert world.guests._self_made == {}

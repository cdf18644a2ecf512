"""The gateway hears a share of IP addresses of each port, whatever MAC addresses and tags its VM invents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.helpers.core import claims
from tests.helpers.core.mini_switch import MiniSwitch, Vm, frame, mac

GATEWAY, FIRST = 1, 2
GATEWAY_MAC = mac(GATEWAY)
OWN, BURST, PER_S, SHARED = 4, 32, 2, 512
"""As in sources.h."""
MANY = 1000

Make = Callable[[bytes, int], bytes]


def address4(number: int) -> str:
    return str(IPv4Address("10.77.0.2") + number)


def address6(number: int) -> str:
    return str(IPv6Address("fd00::2") + number)


def to_gateway(said: bytes) -> bytes:
    return GATEWAY_MAC + said[6:]


def packet4(source: bytes, number: int) -> bytes:
    said = to_gateway(claims.ipv4(source, claims.udp(9)))
    return said[:26] + IPv4Address(address4(number)).packed + said[30:]


def packet6(source: bytes, number: int) -> bytes:
    return to_gateway(claims.ipv6(source, claims.icmpv6(128), sender=address6(number)))


def arp(source: bytes, number: int) -> bytes:
    return claims.arp(source, address4(number), "10.77.0.1")


KINDS: dict[str, Make] = {
    "ARP to all": arp,
    "ARP to the gateway": lambda source, number: to_gateway(arp(source, number)),
    "IPv4": packet4,
    "IPv4 in VLAN 0": lambda source, number: claims.tagged(packet4(source, number), b"\x81\0\0\0"),
    "IPv4 behind two tags": lambda source, number: claims.tagged(
        packet4(source, number), b"\x88\xa8\0\0", b"\x81\0\0\0"
    ),
    "IPv6": packet6,
    "IPv6 to all": lambda source, number: claims.ipv6(source, claims.icmpv6(128), sender=address6(number)),
    "neighbour solicitations": lambda source, number: claims.ipv6(
        source, claims.icmpv6(claims.NS, "fd00::1"), sender=address6(number)
    ),
}
WITHOUT = {
    "an ARP probe": claims.arp(mac(9), "0.0.0.0", "10.77.0.1"),
    "DHCP without an address": to_gateway(claims.ipv4(mac(9), claims.udp(67)))[:26] + bytes(4) + bytes(40),
    "duplicate address detection": claims.ipv6(mac(9), claims.icmpv6(claims.NS, "fd00::9"), sender="::"),
    "another protocol": frame(GATEWAY_MAC, mac(9)),
}


class Lan:
    """A gateway that takes messages, as a TAP does, and VMs."""

    def __init__(self, switch: MiniSwitch) -> None:
        self.switch = switch
        self.gateway = switch.add(GATEWAY, "dgram")
        switch.engines[GATEWAY].limit_sources()
        self.vms: dict[int, Vm] = {}
        self.began = time.monotonic()

    def join(self, port: int) -> None:
        self.vms[port] = self.switch.add(port, "stream")
        self.gateway.send(frame(claims.BROADCAST, GATEWAY_MAC))
        self.switch.settle()
        self.vms[port].send(frame(GATEWAY_MAC, mac(port)))
        self.heard()

    def heard(self) -> list[bytes]:
        self.switch.settle()
        return self.gateway.received()

    def says(self, port: int, *said: bytes) -> int:
        """Send frames; return how many of them the gateway hears."""
        count = 0
        for at in range(0, len(said), 25):
            self.vms[port].send(*said[at : at + 25])
            count += sum(each in said for each in self.heard())
        return count

    @property
    def dropped(self) -> int:
        return self.switch.counters(GATEWAY)["sources"]

    @property
    def late(self) -> int:
        """How many addresses the rate has allowed meanwhile."""
        return int((time.monotonic() - self.began) * PER_S) + 1


@pytest.fixture
def lan() -> Iterator[Lan]:
    with MiniSwitch() as switch:
        made = Lan(switch)
        made.join(FIRST)
        yield made


@pytest.mark.parametrize("macs", [1, 30, MANY])
@pytest.mark.parametrize("kind", KINDS)
def test_a_vm_shows_a_share_of_addresses_however_many_macs_it_has(lan: Lan, kind: str, macs: int) -> None:
    made = [KINDS[kind](mac(0x1000 + number % macs), number) for number in range(MANY)]
    heard = lan.says(FIRST, *made)
    assert OWN + BURST <= heard <= OWN + BURST + lan.late
    assert lan.dropped == MANY - heard
    assert lan.says(FIRST, *made[:OWN]) == OWN  # those that are known are heard on
    lan.join(FIRST + 1)
    others = [KINDS[kind](mac(FIRST + 1), MANY + number) for number in range(OWN + BURST)]
    assert lan.says(FIRST + 1, *others) == len(others)


@pytest.mark.parametrize("what", WITHOUT)
def test_frames_without_an_address_take_no_share(lan: Lan, what: str) -> None:
    lan.says(FIRST, *(arp(mac(0x1000), number) for number in range(MANY)))
    before = lan.dropped
    assert lan.says(FIRST, *[WITHOUT[what]] * 50) == 50
    assert lan.dropped == before


def test_what_hides_its_address_is_not_heard(lan: Lan) -> None:
    hidden = claims.tagged(packet4(mac(FIRST), 1), *[b"\x81\0\0\0"] * 3)
    assert lan.says(FIRST, hidden) == 0
    assert lan.dropped == 1


def test_the_port_that_has_most_makes_room(lan: Lan) -> None:
    full = SHARED // BURST + 1
    for port in range(FIRST, FIRST + full):
        if port not in lan.vms:
            lan.join(port)
        made = [arp(mac(port), port * MANY + number) for number in range(OWN + BURST)]
        assert lan.says(port, *made) == len(made)
    # All have as many, and 32 more than there is room for: of those the oldest are forgotten, and the
    # rate of their port is spent.
    again = [
        lan.says(port, *(arp(mac(port), port * MANY + number) for number in range(OWN + BURST)))
        for port in range(FIRST, FIRST + full)
    ]
    assert sum(again) <= full * OWN + SHARED + full * lan.late
    assert all(heard >= OWN for heard in again)
    last = FIRST + full
    lan.join(last)
    made = [arp(mac(last), last * MANY + number) for number in range(OWN + BURST)]
    assert lan.says(last, *made) == len(made)


def test_a_vm_that_has_left_leaves_its_places_and_owes_its_rate(lan: Lan) -> None:
    lan.says(FIRST, *(arp(mac(FIRST), number) for number in range(MANY)))
    lan.switch.remove(FIRST)
    lan.join(FIRST)
    heard = lan.says(FIRST, *(arp(mac(FIRST), MANY + number) for number in range(MANY)))
    assert OWN <= heard <= OWN + lan.late


def test_the_first_refusal_names_the_sender(lan: Lan) -> None:
    engine = lan.switch.engines[GATEWAY]
    assert engine.guarded() == []
    lan.says(FIRST, *(arp(mac(0x1000 + number), number) for number in range(MANY)))
    ((kind, source, address),) = engine.guarded()
    assert kind == "sources"
    number = int.from_bytes(source[4:], "big") - 0x1000
    assert address == claims.owner(address4(number))
    assert number >= OWN + BURST


def test_only_the_gateway_limits_what_it_hears() -> None:
    with MiniSwitch() as switch:
        lan = Lan(switch)
        lan.join(FIRST)
        other = switch.add(FIRST + 1, "dgram")
        other.send(frame(claims.BROADCAST, mac(FIRST + 1)))
        switch.settle()
        other.received()
        made = [arp(mac(FIRST), number) for number in range(100)]
        lan.vms[FIRST].send(*made)
        switch.settle()
        assert sum(each in made for each in other.received()) == len(made)
        assert switch.counters(FIRST + 1)["sources"] == 0

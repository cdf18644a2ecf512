"""Where a sender's unfinished checksum may be stored: nowhere that the guard, or a limit, has read before."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.helpers.core.claims import (
    AH,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    NA,
    OPTIONS,
    TCP,
    UDP,
    arp,
    ethernet,
    extended,
    icmpv6,
    ipv4,
    ipv6,
    owner,
    snap,
    tagged,
    udp,
)
from tests.helpers.core.guest_world import World, a_world
from tests.helpers.core.mini_switch import BROADCAST, frame, mac
from tests.helpers.core.model_segments import NEEDS_CSUM, sum16, vnet
from tests.helpers.guests.virtio_driver import MRG_RXBUF, VERSION_1

CSUM = 1 << 0
ME = mac(1)
GRE, IPIP, MOBILITY = 47, 4, 135
VLAN, OLD_TAG = b"\x81\0\0\5", b"\x91\0\0\5"
SEGMENT = bytes(40)

REFUSED = {
    "ARP's sender": (arp(ME, "192.168.200.200", "192.168.127.9"), 14, 16),
    "an EtherType behind a tag": (tagged(arp(ME, "192.168.127.1", "192.168.127.9"), VLAN), 14, 2),
    "behind a tag of old": (tagged(frame(BROADCAST, ME), OLD_TAG), 14, 2),
    "SNAP's type": (snap(arp(ME, "192.168.127.1", "192.168.127.9")), 14, 6),
    "IPv4's protocol": (ipv4(ME, udp(68), protocol=TCP), 14, 9),
    "ICMP's type": (ipv4(ME, b"\x08" + bytes(31), protocol=ICMP), 34, 0),
    "UDP's port": (ipv4(ME, udp(53)), 34, 2),
    "UDP's port behind options": (ipv4(ME, udp(53), options=bytes(8)), 42, 2),
    "UDP's port in a first fragment": (ipv4(ME, udp(53), fragment=0x2000), 34, 2),
    "TCP's flags": (ipv4(ME, SEGMENT, protocol=TCP), 34, 12),
    "IPv6's next header": (ipv6(ME, udp(546), next_=TCP), 14, 6),
    "IPv6's sender": (ipv6(ME, icmpv6(NA, "fd00::9")), 14, 10),
    "UDP's port over IPv6": (ipv6(ME, udp(53), next_=UDP), 54, 2),
    "ICMPv6's type": (ipv6(ME, icmpv6(128, "fd00::1")), 54, 0),
    "ICMPv6's target": (ipv6(ME, icmpv6(NA, "fd00::9")), 54, 8),
    "ICMPv6's type behind options": (extended(ME, icmpv6(128), HOP_BY_HOP, OPTIONS), 70, 0),
    "ICMPv6's type behind AH": (extended(ME, icmpv6(128), AH), 78, 0),
    "ICMPv6's type in a fragment": (extended(ME, icmpv6(128), FRAGMENT), 62, 0),
    "behind mobility": (extended(ME, icmpv6(128), MOBILITY), 62, 0),
    "a cut header of IPv4": (ipv4(ME, b"")[:30], 14, 10),
}
ALLOWED = {
    "TCP": (ipv4(ME, SEGMENT, protocol=TCP), 34, 16),
    "TCP behind options": (ipv4(ME, SEGMENT, protocol=TCP, options=bytes(8)), 42, 16),
    "TCP with a tag": (tagged(ipv4(ME, SEGMENT, protocol=TCP), VLAN), 38, 16),
    "UDP": (ipv4(ME, udp(53)), 34, 6),
    "TCP over IPv6": (ipv6(ME, SEGMENT, next_=TCP), 54, 16),
    "UDP over IPv6 behind options": (extended(ME, udp(53), HOP_BY_HOP, last=UDP), 62, 6),
    "ICMPv6": (ipv6(ME, icmpv6(128)), 54, 2),
    "ICMP": (ipv4(ME, b"\x08" + bytes(31), protocol=ICMP), 34, 2),
    "GRE": (ipv4(ME, b"\x80\0\x08\0" + SEGMENT, protocol=GRE), 34, 4),
    "TCP in IPv4 in IPv4": (ipv4(ME, ipv4(ME, SEGMENT, protocol=TCP)[14:], protocol=IPIP), 54, 16),
    "TCP in VXLAN": (ipv4(ME, udp(4789) + ipv4(ME, SEGMENT, protocol=TCP)), 96, 16),
    "TCP behind a type that the guard does not read": (
        ethernet(ME, b"\x88\xfb", bytes(6) + ipv4(ME, SEGMENT, protocol=TCP)[12:]),
        42,
        16,
    ),
}


@pytest.fixture
def world() -> Iterator[World]:
    """A guarded guest that leaves checksums undone, and a neighbour that listens."""
    with a_world(VERSION_1 | MRG_RXBUF | CSUM) as world:
        world.introduce()
        world.engine.set_owners([(owner("192.168.127.1"), 2)])
        world.engine.set_guard(True)
        yield world


def said(world: World, whole: bytes, start: int, offset: int) -> list[bytes]:
    world.driver.send(whole, vnet(NEEDS_CSUM, start=start, offset=offset))
    world.switch.settle()
    return world.peer.received()


@pytest.mark.parametrize("what", REFUSED)
def test_a_sum_is_not_stored_where_the_guard_has_read(world: World, what: str) -> None:
    assert said(world, *REFUSED[what]) == []
    assert (world.counters()["offload"], world.counters()["guarded"]) == (1, 0)


@pytest.mark.parametrize("what", ALLOWED)
def test_sums_of_honest_kernels_pass(world: World, what: str) -> None:
    whole, start, offset = ALLOWED[what]
    (came,) = said(world, whole, start, offset)
    at = start + offset
    assert came[:at] + came[at + 2 :] == whole[:at] + whole[at + 2 :]
    assert world.counters()["offload"] == 0


def test_a_guest_cannot_make_its_sum_the_gateways_address(world: World) -> None:
    """Its ARP says 192.168.200.200 until the sum, which it has chosen, is stored over the second half."""
    whole = arp(ME, "192.168.200.200", "192.168.127.9", reply=True)[:56]
    missing = (0xFFFF - 0x7F01 - sum16(whole[14:])) % 0xFFFF
    header = vnet(NEEDS_CSUM, start=14, offset=16)
    crafted = whole + struct.pack("!H", missing) + bytes(2)
    assert sum16(crafted[14:]) ^ 0xFFFF == 0x7F01
    world.driver.send(crafted, header)
    world.switch.settle()
    assert world.peer.received() == []


def test_tags_that_the_guard_refuses_need_no_place(world: World) -> None:
    tags = tagged(ipv4(ME, SEGMENT, protocol=TCP), VLAN, VLAN, VLAN)
    assert said(world, tags, 46, 16) == []
    assert world.counters()["guarded"] == 1
    world.engine.set_guard(False)
    assert len(said(world, tags, 46, 16)) == 1

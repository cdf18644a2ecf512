"""Frames that a guarded VM may not send, in every disguise; and frames that every VM may send."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forwarder import _core
from tests.helpers.core.claims import (
    AH,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    MAC_CONTROL,
    NA,
    NS,
    OPTIONS,
    RA,
    REDIRECT,
    ROUTING,
    RS,
    TCP,
    UDP,
    arp,
    ethernet,
    extended,
    icmpv6,
    ipv4,
    ipv6,
    link_option,
    of_length,
    owner,
    snap,
    tagged,
    udp,
)
from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac

GATEWAY, SPEAKER, NEIGHBOUR = 1, 2, 3
ME, GATEWAY_MAC, OTHER = mac(SPEAKER), mac(0x99), mac(NEIGHBOUR)
VLAN, SERVICE, PRIORITY = b"\x81\0\0\5", b"\x88\xa8\0\6", b"\x81\0\0\0"
OWNERS = [
    (owner("192.168.127.1"), GATEWAY),
    (owner("192.168.127.254"), GATEWAY),
    (owner("fd00::1"), GATEWAY),
    (owner("fe80::1"), GATEWAY),
    (owner("192.168.127.2"), SPEAKER),
    (owner("192.168.127.3"), NEIGHBOUR),
]
ADVERTISEMENT = icmpv6(RA)
ICMP_REDIRECT = b"\5\1\0\0\xc0\xa8\x7f\2\x45" + bytes(27)
NONCE = b"\x0e\1" + bytes(6)

ROUTER = {
    "RA": ipv6(ME, ADVERTISEMENT),
    "redirect": ipv6(ME, icmpv6(REDIRECT, "fd00::9")),
    "RA with a tag": tagged(ipv6(ME, ADVERTISEMENT), VLAN),
    "RA with two tags": tagged(ipv6(ME, ADVERTISEMENT), SERVICE, VLAN),
    "RA with two tags of VLAN 0": tagged(ipv6(ME, ADVERTISEMENT), PRIORITY, PRIORITY),
    "RA in SNAP": snap(ipv6(ME, ADVERTISEMENT)),
    "RA in the other SNAP": snap(ipv6(ME, ADVERTISEMENT), b"\0\0\xf8"),
    "RA in SNAP behind a tag": tagged(snap(ipv6(ME, ADVERTISEMENT)), PRIORITY),
    "RA with a tag in SNAP": snap(tagged(ipv6(ME, ADVERTISEMENT), PRIORITY)),
    "RA behind hop-by-hop": extended(ME, ADVERTISEMENT, HOP_BY_HOP),
    "RA behind three headers": extended(ME, ADVERTISEMENT, HOP_BY_HOP, ROUTING, OPTIONS),
    "RA behind fifteen headers": extended(ME, ADVERTISEMENT, *[OPTIONS] * 15),
    "redirect of IPv4": ipv4(ME, ICMP_REDIRECT, protocol=ICMP),
    "redirect of IPv4 behind options": ipv4(ME, ICMP_REDIRECT, protocol=ICMP, options=b"\1" * 8),
    "redirect's first fragment": ipv4(ME, ICMP_REDIRECT, protocol=ICMP, fragment=0x2000),
    "redirect of IPv4 with a tag": tagged(ipv4(ME, ICMP_REDIRECT, protocol=ICMP), VLAN),
    "RA of IPv4": ipv4(ME, b"\x09" + bytes(15), protocol=ICMP),
    "RA behind AH": extended(ME, ADVERTISEMENT, AH),
}
SERVER = {
    "DHCP": ipv4(ME, udp(68)),
    "DHCP from another port": ipv4(ME, udp(68, 1067)),
    "DHCP behind options": ipv4(ME, udp(68), options=b"\1" * 8),
    "DHCP's first fragment": ipv4(ME, udp(68), fragment=0x2000),
    "DHCP with a tag": tagged(ipv4(ME, udp(68)), VLAN),
    "DHCP in SNAP": snap(ipv4(ME, udp(68))),
    "DHCPv6": ipv6(ME, udp(546, 547), next_=UDP),
    "DHCPv6 behind headers": extended(ME, udp(546, 547), HOP_BY_HOP, OPTIONS, last=UDP),
    "DHCPv6's first fragment": extended(ME, udp(546, 547), FRAGMENT, last=UDP),
}
ADDRESS = {
    "ARP request": arp(ME, "192.168.127.1", "192.168.127.9"),
    "ARP reply to one": arp(ME, "192.168.127.1", "192.168.127.3", reply=True, to=OTHER),
    "gratuitous ARP": arp(ME, "192.168.127.1", "192.168.127.1"),
    "ARP of the host alias": arp(ME, "192.168.127.254", "192.168.127.9", reply=True),
    "ARP of a lease": arp(ME, "192.168.127.3", "192.168.127.3"),
    "ARP with a tag": tagged(arp(ME, "192.168.127.1", "192.168.127.1"), VLAN),
    "ARP of IEEE 802 networks": arp(ME, "192.168.127.1", "192.168.127.9", reply=True, hardware=6),
    "ARP of a network that is none": arp(ME, "192.168.127.1", "192.168.127.9", hardware=0xFFFF),
    "ARP that a network card pads": arp(ME, "192.168.127.1", "192.168.127.9")[:32],
    "ARP in SNAP": snap(arp(ME, "192.168.127.1", "192.168.127.1")),
    "ARP in SNAP of an undefined length": of_length(1535, snap(arp(ME, "192.168.127.1", "192.168.127.1"))),
    "ARP with the gateway's MAC": arp(ME, "192.168.127.77", "192.168.127.9", mac=GATEWAY_MAC),
    "NA": ipv6(ME, icmpv6(NA, "fd00::1", link_option(ME, target=True))),
    "NA without an option": ipv6(ME, icmpv6(NA, "fd00::1")),
    "NA of the router's own": ipv6(ME, icmpv6(NA, "fe80::1")),
    "NA from the router": ipv6(ME, icmpv6(NA, "fd00::9"), sender="fe80::1"),
    "NS from the router": ipv6(ME, icmpv6(NS, "fd00::9", link_option(ME, target=False)), sender="fd00::1"),
    "RS from the router": ipv6(ME, icmpv6(RS), sender="fe80::1"),
    "NA with the gateway's MAC": ipv6(ME, icmpv6(NA, "fd00::9", link_option(GATEWAY_MAC, target=True))),
    "NS with the gateway's MAC": ipv6(ME, icmpv6(NS, "fd00::9", link_option(GATEWAY_MAC, target=False))),
    "NA behind fifteen options": ipv6(
        ME, icmpv6(NA, "fd00::9", NONCE * 15 + link_option(GATEWAY_MAC, target=True))
    ),
    "NA behind a header": extended(ME, icmpv6(NA, "fd00::1"), OPTIONS),
}
HIDDEN = {
    "RA with three tags": tagged(ipv6(ME, ADVERTISEMENT), PRIORITY, PRIORITY, PRIORITY),
    "RA in a fragment": extended(ME, ADVERTISEMENT, FRAGMENT),
    "NA in a fragment": extended(ME, icmpv6(NA, "fd00::9"), OPTIONS, FRAGMENT),
    "a first fragment without the whole chain": extended(ME, b"", FRAGMENT, OPTIONS)[:62],
    "a chain that is longer than the frame": extended(ME, b"", *[OPTIONS] * 3)[:62],
    "RA behind seventeen headers": extended(ME, ADVERTISEMENT, *[OPTIONS] * 17),
    "NA behind sixteen options": ipv6(
        ME, icmpv6(NA, "fd00::9", NONCE * 16 + link_option(GATEWAY_MAC, target=True))
    ),
    "NS behind sixteen options": ipv6(
        ME, icmpv6(NS, "fd00::9", NONCE * 16 + link_option(GATEWAY_MAC, target=False))
    ),
    "UDP that begins behind the frame": extended(ME, b"", HOP_BY_HOP, last=UDP)[:62],
}
HARMLESS = {
    "TCP": ipv4(ME, udp(68), protocol=TCP),
    "UDP": ipv4(ME, udp(53)),
    "a ping": ipv4(ME, b"\x08" + bytes(31), protocol=ICMP),
    "a ping behind options": ipv4(ME, b"\x08" + bytes(31), protocol=ICMP, options=b"\1" * 8),
    "a later fragment of a ping": ipv4(ME, ICMP_REDIRECT, protocol=ICMP, fragment=0x0001),
    "ICMP that begins behind the frame": ipv4(ME, b"", protocol=ICMP)[:34],
    "DHCP of a client": ipv4(ME, udp(67, 68)),
    "DHCPv6 of a client": ipv6(ME, udp(547, 546), next_=UDP),
    "a later fragment": ipv4(ME, udp(68), fragment=0x0001),
    "a later fragment of IPv6": extended(ME, ADVERTISEMENT, FRAGMENT, offset=1),
    "an echo": ipv6(ME, icmpv6(128)),
    "a fragmented echo": extended(ME, icmpv6(128), FRAGMENT),
    "MLD": extended(ME, icmpv6(143), HOP_BY_HOP),
    "ARP of its own": arp(ME, "192.168.127.2", "192.168.127.1"),
    "ARP of nobody's address": arp(ME, "192.168.127.77", "192.168.127.1"),
    "an ARP probe": arp(ME, "0.0.0.0", "192.168.127.3"),
    "ARP that is cut in its sender": arp(ME, "192.168.127.1", "192.168.127.9")[:31],
    "NS of its own": ipv6(ME, icmpv6(NS, "fd00::1", link_option(ME, target=False)), sender="fd00::7"),
    "duplicate address detection": ipv6(ME, icmpv6(NS, "fd00::77"), sender="::"),
    "NA of its own": ipv6(ME, icmpv6(NA, "fd00::77", link_option(ME, target=True)), sender="fd00::77"),
    "NA of its own behind fifteen options": ipv6(
        ME, icmpv6(NA, "fd00::77", NONCE * 15 + link_option(ME, target=True)), sender="fd00::77"
    ),
    "NA with sixteen options": ipv6(ME, icmpv6(NA, "fd00::77", NONCE * 16), sender="fd00::77"),
    "RS": ipv6(ME, icmpv6(RS, option=link_option(ME, target=False))),
    "STP": bytes.fromhex("0180c2000000") + ME + b"\0\x26\x42\x42\3" + bytes(46),
    "LACP": bytes.fromhex("0180c2000002") + ME + b"\x88\x09\1" + bytes(46),
    "LLDP": bytes.fromhex("0180c200000e") + ME + b"\x88\xcc" + bytes(46),
    "TCP with two tags": tagged(ipv4(ME, bytes(20), protocol=TCP), SERVICE, VLAN),
    "SNAP of the least type": of_length(1536, snap(arp(ME, "192.168.127.1", "192.168.127.1"))),
    "another type": frame(BROADCAST, ME, b"anything"),
    "an empty frame": BROADCAST + ME + b"\x08\x06",
}
GROUP = {
    "broadcast": frame(BROADCAST, b"\xff" * 6),
    "multicast": frame(OTHER, bytes.fromhex("01005e000001")),
    "local": frame(BROADCAST, bytes.fromhex("030000000007")),
    "zero": frame(OTHER, bytes(6)),
}
PAUSE = {
    "PAUSE": bytes.fromhex("0180c2000001") + ME + MAC_CONTROL + b"\0\1\xff\xff" + bytes(42),
    "PAUSE to one": ethernet(ME, MAC_CONTROL, b"\0\1\xff\xff", OTHER),
    "PAUSE to all": ethernet(ME, MAC_CONTROL, b"\1\1\0\xff"),
    "PAUSE with a tag": tagged(ethernet(ME, MAC_CONTROL, b"\0\1\xff\xff", OTHER), VLAN),
}
REFUSED = {"router": ROUTER, "server": SERVER, "address": ADDRESS, "hidden": HIDDEN}


class Lan:
    """A gateway, a speaker that is guarded, and a neighbour that listens."""

    def __init__(self, switch: MiniSwitch, kind: str = "stream") -> None:
        self.switch = switch
        self.speaker = switch.add(SPEAKER, kind)
        self.neighbour = switch.add(NEIGHBOUR, "stream")
        switch.add(GATEWAY, "stream")
        self.engine = switch.engines[SPEAKER]
        for engine in switch.engines.values():
            engine.pin(GATEWAY, [GATEWAY_MAC])
            engine.set_owners(OWNERS)
        self.guard(SPEAKER)
        switch.vms[NEIGHBOUR].send(frame(BROADCAST, OTHER))
        switch.settle()
        self.neighbour.received()
        self.speaker.received()

    def guard(self, port: int, *, enabled: bool = True) -> None:
        self.switch.engines[port].set_guard(enabled)

    def says(self, *frames: bytes) -> list[bytes]:
        """Return what of it the neighbour hears."""
        self.speaker.send(*frames)
        self.switch.settle()
        return self.neighbour.received()

    @property
    def guarded(self) -> int:
        return self.switch.counters(SPEAKER)["guarded"]


@pytest.fixture
def lan() -> Iterator[Lan]:
    with MiniSwitch() as switch:
        yield Lan(switch)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, frames in REFUSED.items() for name in frames]
)
def test_forbidden_frames_of_a_guarded_vm_are_dropped_and_reported_once(
    lan: Lan, kind: str, name: str
) -> None:
    said = REFUSED[kind][name]
    assert lan.says(said, said) == []
    assert lan.guarded == 2
    ((told, source, _),) = lan.engine.guarded()
    assert (told, source) == (kind, ME)
    assert lan.says(said) == []
    assert lan.engine.guarded() == []
    lan.guard(SPEAKER, enabled=False)
    assert lan.says(said) == [said]


@pytest.mark.parametrize("name", HARMLESS)
def test_allowed_frames_pass(lan: Lan, name: str) -> None:
    assert lan.says(HARMLESS[name]) == [HARMLESS[name]]
    assert (lan.guarded, lan.engine.guarded()) == (0, [])


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    ("kind", "name"), [("group", each) for each in GROUP] + [("pause", each) for each in PAUSE]
)
def test_group_sources_and_pauses_pass_nowhere(lan: Lan, kind: str, name: str, *, enabled: bool) -> None:
    lan.guard(SPEAKER, enabled=enabled)
    said = (GROUP if kind == "group" else PAUSE)[name]
    assert lan.says(said) == []
    assert lan.guarded == 1
    assert [note[0] for note in lan.engine.guarded()] == [kind]


def test_the_engine_comes_back_for_a_first_refusal_and_for_no_other(lan: Lan) -> None:
    for wanted in (_core.EVENT_GUARDED, 0):
        lan.speaker.send(ROUTER["RA"])
        assert lan.engine.run(0.0) & _core.EVENT_GUARDED == wanted
        lan.engine.guarded()


def test_the_note_says_which_address_was_claimed(lan: Lan) -> None:
    lan.says(ADDRESS["ARP of a lease"], ADDRESS["ARP request"])
    assert lan.engine.guarded() == [("address", ME, owner("192.168.127.3"))]


def test_the_owner_may_announce_its_address(lan: Lan) -> None:
    lan.guard(NEIGHBOUR)
    lan.guard(GATEWAY, enabled=False)
    own = arp(OTHER, "192.168.127.3", "192.168.127.3")
    routers = ipv6(GATEWAY_MAC, ADVERTISEMENT)
    lan.neighbour.send(own)
    lan.switch.vms[GATEWAY].send(routers, arp(GATEWAY_MAC, "192.168.127.1", "192.168.127.9"))
    lan.switch.settle()
    assert own in lan.speaker.received()
    assert routers in lan.neighbour.received()


def test_owners_change_while_frames_pass(lan: Lan) -> None:
    said = ADDRESS["ARP of a lease"]
    assert lan.says(said) == []
    lan.engine.set_owners([(address, SPEAKER) for address, _ in OWNERS])
    assert lan.says(said) == [said]
    lan.engine.set_owners([])
    assert lan.says(ADDRESS["ARP request"]) == [ADDRESS["ARP request"]]
    lan.engine.set_owners(OWNERS)
    assert lan.says(said) == []


@pytest.mark.parametrize("kind", [*KINDS])
def test_frames_around_a_refused_one_arrive_in_order_and_whole(kind: str) -> None:
    with MiniSwitch() as switch:
        lan = Lan(switch, kind)
        lan.says(frame(OTHER, ME, b"first"))  # so that what follows is read to where it will be
        good = [frame(OTHER, ME, bytes((number,)), 60 + number) for number in range(50)]
        bad = [*ROUTER.values(), *ADDRESS.values(), *SERVER.values()]
        mixed = [each for pair in zip(good, bad, strict=False) for each in pair] + good[len(bad) :]
        assert lan.says(*mixed) == good
        assert lan.guarded == len(bad)


@pytest.mark.parametrize("port", [0, _core.MAX_PORTS if hasattr(_core, "MAX_PORTS") else 1024])
def test_owners_are_checked(lan: Lan, port: int) -> None:
    with pytest.raises(ValueError, match="16 bytes of address and a port"):
        lan.engine.set_owners([(bytes(16), port)])
    with pytest.raises(ValueError, match="16 bytes of address and a port"):
        lan.engine.set_owners([(bytes(4), 1)])
    assert lan.says(ADDRESS["ARP request"]) == [], "the table of before is in force"


@pytest.mark.parametrize("name", [*ROUTER, *HIDDEN])
def test_every_beginning_of_a_frame_can_be_read(lan: Lan, name: str) -> None:
    """No byte behind the end of a frame is read: sanitizers check this."""
    whole = {**ROUTER, **HIDDEN}[name]
    lan.says(*(whole[:size] for size in range(14, len(whole))))
    assert lan.guarded <= len(whole)

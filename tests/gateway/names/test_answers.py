"""Local answers: gvproxy's answers for zones drawn at random, and names that never leave."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.names import Record, Zone, added
from gateway.names import message
from gateway.names.answers import ASK, NOTHING, UNKNOWN, Names
from gateway.names.message import AAAA, ANY, DNSKEY, DS, NS, PTR, SOA, A, address, write_name
from gateway.settings import read

LABELS = st.sampled_from(["a", "b"])
TYPES = [A, NS, 5, SOA, PTR, 15, 16, AAAA, 33, 65, ANY, 257]
"""Twelve types: with CNAME, MX, TXT, SRV, HTTPS and CAA."""


def names(most: int) -> st.SearchStrategy[str]:
    return st.lists(LABELS, min_size=1, max_size=most).map(".".join)


ADDRESSES = st.integers(1, 200).map(lambda number: IPv4Address(0x0A000000 + number))
RECORDS = st.lists(st.builds(Record, names(2), ADDRESSES), max_size=4).map(tuple)
ZONES = st.lists(st.builds(Zone, names(3), RECORDS, st.none() | ADDRESSES), max_size=6)
ASKED = [".".join(labels) for count in range(2, 6) for labels in itertools.product("ab", repeat=count)]

SETTINGS = read({"dns-record": ["db.lab.example=10.9.8.7", "six.example=fd00::6", "plain=10.0.0.1"]})
POLICY = SETTINGS.policy
GUESTS = {"web": (IPv4Address("192.168.127.57"), IPv6Address("fd00::57"))}


def ours() -> Names:
    by_address = {address: name for name, addresses in GUESTS.items() for address in addresses}
    made = Names(
        POLICY,
        SETTINGS.records,
        lambda name: GUESTS.get(name, ()),
        lambda address: by_address.get(address, ""),
    )
    made.change_zones(SETTINGS.zones)
    return made


def found(names: Names, name: str, kind: int = A) -> list[str]:
    """Return the addresses or the name that are answered, which have to be there."""
    decision = names.decide(name, kind)
    assert decision is not None
    assert decision.code == message.NO_ERROR
    return [
        message._name(record.data, 0)[0] if record.kind == PTR else str(ip_address(record.data))  # type: ignore[index]
        for record in decision.records
    ]


def gvproxys_answer(zones: list[Zone], asked: str) -> object:
    """Return the address, False for a name that does not exist, None for one that others are asked for."""
    for zone in zones:
        if asked.endswith(f".{zone.name}"):
            for record in zone.records:
                if record.name == asked.removesuffix(f".{zone.name}"):
                    return record.address
            return zone.default or False
    return None


def gvproxys_zones(asked_for: list[Zone]) -> list[Zone]:
    zones: list[Zone] = []
    for zone in asked_for:
        index = next((index for index, each in enumerate(zones) if each.name == zone.name), None)
        if index is None:
            zones.append(zone)
        else:
            zones[index] = zone._replace(records=zone.records + zones[index].records)
    return zones


@given(ZONES)
def test_zones_give_gvproxys_answers(asked_for: list[Zone]) -> None:
    zones: tuple[Zone, ...] = ()
    for zone in asked_for:
        zones = added(zones, Zone.parse(str(zone)))
    theirs = gvproxys_zones(asked_for)
    assert [zone.name for zone in zones] == [zone.name for zone in theirs]
    made = Names(POLICY, (), lambda _: (), lambda _: "")
    made.change_zones(zones)
    for asked in ASKED:
        wanted, got = gvproxys_answer(theirs, asked), made.decide(asked, A)
        if wanted is None:
            assert got is ASK, asked
        elif wanted is False:
            assert got in (NOTHING, UNKNOWN), asked
        else:
            assert got is not None
            assert got.records == (address(wanted),), asked  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_a_name_that_is_ours_is_decided_here(kind: int) -> None:
    records = {A: ["10.9.8.7"], ANY: ["10.9.8.7"]}.get(kind, [])
    assert found(ours(), "db.lab.example", kind) == records
    assert found(ours(), "six.example", kind) == {AAAA: ["fd00::6"], ANY: ["fd00::6"]}.get(kind, [])
    four, six = map(str, GUESTS["web"])
    for name in ("web", "web.containers.internal"):
        assert found(ours(), name, kind) == {A: [four], AAAA: [six], ANY: [four, six]}.get(kind, [])
    for name in ("containers.internal", "docker.internal"):
        assert found(ours(), name, kind) == []
    for name in ("nobody.containers.internal", "a.b.docker.internal", "nobody", "com"):
        assert ours().decide(name, kind) == UNKNOWN


def test_the_gateway_and_the_host_are_found_plainly_and_in_both_domains() -> None:
    for name in ("gateway", "gateway.containers.internal", "gateway.docker.internal"):
        assert found(ours(), name) == [str(POLICY.gateway4)]
        assert found(ours(), name, AAAA) == [str(POLICY.prefix[1])]
    assert found(ours(), "host") == found(ours(), "host.docker.internal") == [str(POLICY.host4)]
    closed = read({"host-access": False})
    made = Names(closed.policy, (), lambda _: (), lambda _: "")
    made.change_zones(closed.zones)
    assert made.decide("host", A) == made.decide("host.containers.internal", AAAA) == UNKNOWN


@pytest.mark.parametrize("name", ["localhost", "foo.localhost", "a.b.localhost", "localhost.localdomain"])
def test_localhost_is_the_guest_itself(name: str) -> None:
    assert found(ours(), name) == ["127.0.0.1"]
    assert found(ours(), name, AAAA) == ["::1"]
    assert found(ours(), name, 16) == []


def test_other_names_are_asked_for() -> None:
    for name in (
        "example.com",
        "xcontainers.internal",
        "lab.example",
        "x.db.lab.example",
        "internal.example",
        "",
    ):
        assert ours().decide(name, A) is ASK
    for name in ("invalid", "x.invalid", "abcd.onion"):
        assert ours().decide(name, A) == UNKNOWN


def test_a_guest_that_validates_finds_its_keys_of_single_labels() -> None:
    for kind in (DS, DNSKEY):
        assert ours().decide("com", kind) is ASK
        assert found(ours(), "web", kind) == []
    assert ours().decide("", NS) is ASK


def reverse(text: str) -> str:
    return ip_address(text).reverse_pointer


def test_addresses_of_the_lan_have_names_or_none_and_are_never_asked_for() -> None:
    names = ours()
    assert found(names, reverse("192.168.127.57"), PTR) == ["web.containers.internal"]
    assert found(names, reverse("192.168.127.1"), PTR) == ["gateway.containers.internal"]
    assert found(names, reverse(str(POLICY.host6)), PTR) == ["host.containers.internal"]
    assert found(names, reverse("127.0.0.1"), PTR) == found(names, reverse("::1"), PTR) == ["localhost"]
    for own in ("192.168.127.99", "192.168.127.255", "169.254.1.1", "0.0.0.0", "255.255.255.255", "fe80::1"):
        assert names.decide(reverse(own), PTR) == UNKNOWN
    assert names.decide(reverse(str(POLICY.prefix[77])), PTR) == UNKNOWN
    assert found(names, reverse("192.168.127.57"), 16) == []


def test_names_of_the_lans_networks_are_ours_and_those_of_wider_ones_are_not() -> None:
    names = ours()
    assert names.decide("127.168.192.in-addr.arpa", SOA) == NOTHING
    assert names.decide("lb._dns-sd._udp.0.127.168.192.in-addr.arpa", PTR) == UNKNOWN
    for below in (
        reverse("192.168.127.57"),
        reverse("192.168.127.1"),
        reverse(str(POLICY.host6)),
        reverse("::1"),
    ):
        assert names.decide(f"x.{below}", PTR) == names.decide(f"x.y.{below}", 16) == UNKNOWN
    assert names.decide("b._dns-sd._udp.127.168.192.in-addr.arpa", PTR) == UNKNOWN
    for wider in ("168.192.in-addr.arpa", "192.in-addr.arpa", "in-addr.arpa", "ip6.arpa", "f.ip6.arpa"):
        assert names.decide(wider, SOA) is ASK
    for other in ("192.168.126.1", "10.0.0.1", "8.8.8.8", "2001:db8::1", "fd00::1"):
        assert names.decide(reverse(other), PTR) is ASK
    for odd in ("1.2.3.4.5.in-addr.arpa", "01.127.168.192.in-addr.arpa", "300.127.168.192.in-addr.arpa"):
        names.decide(odd, PTR)
    large = read({"subnet": "10.64.0.0/11"}).policy
    wide = Names(large, (), lambda _: (), lambda _: "")
    assert wide.decide("70.10.in-addr.arpa", SOA) == NOTHING
    assert wide.decide("10.in-addr.arpa", SOA) is ASK
    assert wide.decide(reverse("10.95.255.254"), PTR) is not ASK
    assert wide.decide(reverse("10.96.0.1"), PTR) is ASK


@given(st.text(alphabet="ab.0129f-_", max_size=80), st.integers(0, 65535))
def test_any_name_is_decided(name: str, kind: int) -> None:
    for suffix in ("", ".in-addr.arpa", ".ip6.arpa", ".containers.internal"):
        ours().decide(name + suffix, kind)


def test_names_of_the_operator_are_known() -> None:
    names = ours()
    assert [label for label in ("plain", "gateway", "host", "web", "db") if names.is_configured(label)] == [
        "plain",
        "gateway",
        "host",
    ]
    names.change_zones(
        (*SETTINGS.zones, Zone("containers.internal", (Record("later", IPv4Address("10.0.0.1")),)))
    )
    assert names.is_configured("later")


def test_a_name_is_written_as_messages_have_it() -> None:
    assert write_name("web.internal") == b"\x03web\x08internal\0"
    assert write_name("") == b"\0"

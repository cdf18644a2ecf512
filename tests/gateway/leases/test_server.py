"""The DHCP server: answers at once, and believes a guest nothing about another."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest

from gateway.leases.lease import LEASE_S, LeaseState
from gateway.leases.news import BURST, News, Record
from gateway.leases.server import Server
from gateway.leases.table import Leases
from gateway.ports import Port
from gateway.relay.counts import Counts
from gateway.settings import lease_range, read
from tests.helpers.gateway import dhcp_client
from tests.helpers.gateway.dhcp_client import (
    ACK,
    ASKED,
    CLIENT,
    DECLINE,
    DISCOVER,
    INFORM,
    NAK,
    NAME,
    OFFER,
    RAPID,
    RELEASE,
    REQUEST,
    Reply,
    request,
)
from tests.helpers.gateway.dhcp_client import SERVER as SERVER_ID

ALICE, MALLORY = b"\x52\x54\0\0\0\x0a", b"\x52\x54\0\0\0\x0b"
AT_ALICE, AT_MALLORY = Port(2, 20), Port(3, 30)
EVERYBODY = IPv4Address("255.255.255.255")


class World:
    """One server; each question is answered at once or not at all."""

    def __init__(self, **settings: object) -> None:
        self.settings = read({key.replace("_", "-"): value for key, value in settings.items()})
        first, last = lease_range(self.settings.policy.subnet)
        fixed = {bytes.fromhex(each.mac.replace(":", "")): int(each.address) for each in self.settings.leases}
        self.leases = Leases(int(first), int(last), fixed)
        self.counters = Counts(lambda: 0.0)
        self.now = 0.0
        self.told: list[Record] = []
        news = News(self.told.append, lambda: self.now)
        self.server = Server(self.settings, self.leases, {"gateway", "db"}.__contains__, self.counters, news)
        self.to = IPv4Address(0)

    def say(
        self,
        kind: int,
        mac: bytes,
        port: Port,
        options: Mapping[int, bytes] | None = None,
        *,
        own: str = "0.0.0.0",
        broadcast: bool = True,
        source: bytes | None = None,
    ) -> Reply | None:
        data = request(kind, mac, options, own=own, broadcast=broadcast)
        answer = self.server.answer(data, source or mac, port, self.now)
        if answer is None:
            return None
        self.to = answer.to
        return dhcp_client.read(answer.payload)

    def lease(self, mac: bytes, port: Port, name: str = "", **more: bytes) -> str:
        """Ask for a lease and take it; return the address, "" if there is none."""
        said = {NAME: name.encode()} if name else {}
        offered = self.say(DISCOVER, mac, port, said)
        if offered is None:
            return ""
        assert offered.kind == OFFER
        taken = said | {ASKED: socket.inet_aton(offered.address), SERVER_ID: offered.options[SERVER_ID]}
        got = self.say(REQUEST, mac, port, taken)
        assert got is not None
        return got.address if got.kind == ACK else ""

    def words(self) -> list[object]:
        """Return what was told of leases since the last time."""
        told = [record["word"] for record in self.told]
        self.told.clear()
        return told

    def name(self, name: str) -> str:
        """Return the address of a name."""
        lease = self.leases.named(name)
        return str(IPv4Address(lease.address)) if lease is not None else ""


def test_a_lease_comes_with_all_that_a_guest_needs() -> None:
    world = World(mtu=9000, search_domain=["lab.example", "b"])
    address = world.lease(ALICE, AT_ALICE)
    got = world.say(REQUEST, ALICE, AT_ALICE, own=address)
    assert got is not None
    gateway = socket.inet_aton("192.168.127.1")
    assert got.address == address
    assert world.to == IPv4Address(address)  # a renewal goes to the address that there is
    wanted = {1: b"\xff\xff\xff\0", 3: gateway, 6: gateway, 26: b"\x23\x28", 54: gateway}
    assert {code: got.options[code] for code in wanted} == wanted
    assert int.from_bytes(got.options[51], "big") == 3600
    assert got.options[15] == b"containers.internal"
    assert got.options[119] == b"\3lab\7example\0\1b\0"


def test_an_answer_goes_where_the_client_listens() -> None:
    world = World()
    world.say(DISCOVER, ALICE, AT_ALICE, broadcast=True)
    assert world.to == EVERYBODY
    offered = world.say(DISCOVER, ALICE, AT_ALICE, broadcast=False)
    assert offered is not None
    assert world.to == IPv4Address(offered.address)
    assert world.say(REQUEST, ALICE, AT_ALICE, {ASKED: bytes(4)}, broadcast=False).kind == NAK  # type: ignore[union-attr]
    assert world.to == EVERYBODY


def test_clones_with_one_identifier_have_an_address_each() -> None:
    world = World()
    same = {CLIENT: b"\xff" * 19}
    one = world.say(DISCOVER, ALICE, AT_ALICE, same)
    other = world.say(DISCOVER, MALLORY, AT_MALLORY, same)
    assert one is not None
    assert other is not None
    assert one.address != other.address


def test_a_message_for_another_mac_address_is_dropped_and_counted() -> None:
    world = World()
    for number in range(300):
        assert world.say(DISCOVER, bytes((2, 0, 0, 0, 1, number & 255)), AT_MALLORY, source=MALLORY) is None
    assert world.counters["dhcp_spoofed"] == 300
    assert len(world.leases) == 0


def test_a_guest_cannot_release_decline_or_take_the_lease_of_another() -> None:
    world = World()
    address = world.lease(ALICE, AT_ALICE)
    for kind in (RELEASE, DECLINE):
        asked = {ASKED: socket.inet_aton(address)}
        world.say(kind, MALLORY, AT_MALLORY, asked, own=address)
        world.say(kind, ALICE, AT_MALLORY, asked, own=address)
    got = world.say(REQUEST, MALLORY, AT_MALLORY, {ASKED: socket.inet_aton(address)})
    assert got is not None
    assert got.kind == NAK
    stolen = world.say(REQUEST, ALICE, AT_MALLORY, own=address)
    assert stolen is not None
    assert stolen.kind == NAK
    lease = world.leases.at(int(IPv4Address(address)))
    assert lease is not None
    assert (lease.mac, lease.port, lease.state) == (ALICE, AT_ALICE, LeaseState.BOUND)
    assert world.counters["dhcp_refused"] == 2


def test_a_guest_that_declines_its_address_takes_its_name_to_the_next_one() -> None:
    for name, called in (("web", "web"), ("", "52-54-00-00-00-0a")):
        world = World()
        first = world.lease(ALICE, AT_ALICE, name)
        declined = {ASKED: IPv4Address(first).packed, SERVER_ID: world.server.own.packed}
        world.say(DECLINE, ALICE, AT_ALICE, declined)
        assert world.leases.named(called) is None
        second = world.lease(ALICE, AT_ALICE, name)
        assert second != first
        named = world.leases.named(called)
        assert named is not None
        assert str(IPv4Address(named.address)) == second


def test_a_released_address_is_kept_and_a_declined_one_is_not_given() -> None:
    world = World()
    address = world.lease(ALICE, AT_ALICE)
    world.say(RELEASE, ALICE, AT_ALICE, own=address)
    assert world.lease(ALICE, AT_ALICE) == address
    world.say(DECLINE, ALICE, AT_ALICE, {ASKED: socket.inet_aton(address)})
    assert world.counters["dhcp_declined"] == 1
    assert world.lease(ALICE, AT_ALICE) not in ("", address)


def test_a_guest_that_takes_another_servers_offer_gives_ours_back() -> None:
    world = World()
    assert world.say(DISCOVER, ALICE, AT_ALICE) is not None
    assert world.say(REQUEST, ALICE, AT_ALICE, {SERVER_ID: bytes((10, 0, 0, 1))}) is None
    assert [each.state for each in world.leases] == [LeaseState.KEPT]


def test_information_and_a_lease_in_two_messages() -> None:
    world = World()
    told = world.say(INFORM, ALICE, AT_ALICE, own="192.168.127.77")
    assert told is not None
    assert (told.kind, told.address, 51 in told.options) == (ACK, "0.0.0.0", False)
    assert world.to == IPv4Address("192.168.127.77")
    quick = world.say(DISCOVER, ALICE, AT_ALICE, {RAPID: b""})
    assert quick is not None
    assert (quick.kind, quick.options[RAPID]) == (ACK, b"")
    assert [each.state for each in world.leases] == [LeaseState.BOUND]


def test_a_name_in_use_stays_its_guests() -> None:
    world = World()
    alice = world.lease(ALICE, AT_ALICE, "alice")
    mallory = world.lease(MALLORY, AT_MALLORY, "alice")
    assert mallory
    assert world.name("alice") == alice
    assert world.counters["dhcp_name_in_use"] == 1
    assert world.name("52-54-00-00-00-0b") == mallory
    world.leases.left(AT_ALICE, 0.0)
    assert world.name("alice") == ""
    assert world.lease(MALLORY, AT_MALLORY, "alice") == mallory
    assert world.name("alice") == mallory
    assert world.lease(ALICE, AT_ALICE, "alice") == alice
    assert world.name("alice") == mallory


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "localdomain", "ip6-localhost", "ip6-loopback", "broadcasthost", "local", "invalid"),
        *("host", "gateway", "router", "dns", "wpad", "isatap", "_gateway", "_outbound"),
        *("db", "LOCALHOST", "localhost.localdomain", "52-54-00-00-00-0b"),
    ],
)
def test_reserved_or_configured_names_are_never_a_guests(name: str) -> None:
    world = World()
    address = world.lease(ALICE, AT_ALICE, name)
    assert world.name(name.partition(".")[0].lower()) == ""
    assert world.name("52-54-00-00-00-0a") == address


@pytest.mark.parametrize("name", ["a b", "x/y", "é", "-a", "a" * 64, "\0", "."])
def test_a_malformed_name_is_not_given(name: str) -> None:
    world = World()
    address = world.lease(ALICE, AT_ALICE, name)
    assert [each.name for each in world.leases] == ["52-54-00-00-00-0a"]
    assert world.name("52-54-00-00-00-0a") == address


def test_a_guest_may_change_its_name_and_a_full_one_is_its_first_label() -> None:
    world = World()
    address = world.lease(ALICE, AT_ALICE, "one")
    assert world.lease(ALICE, AT_ALICE, "Two.example.org") == address
    assert (world.name("one"), world.name("two")) == ("", address)
    assert world.lease(ALICE, AT_ALICE) == address
    assert world.name("two") == address


def test_a_static_lease_has_its_address_and_name_whatever_its_guest_says() -> None:
    world = World(static_lease=["52:54:00:00:00:0a=192.168.127.77,web"])
    assert world.lease(MALLORY, AT_MALLORY, "web")
    assert world.name("web") == ""
    assert world.lease(ALICE, AT_ALICE, "other") == "192.168.127.77"
    assert world.name("web") == "192.168.127.77"
    got = world.say(REQUEST, ALICE, AT_ALICE, own="192.168.127.77")
    assert got is not None
    assert got.options[NAME] == b"web"


def test_a_full_pool_is_no_answer_and_is_counted() -> None:
    world = World(subnet="10.0.0.0/28")
    ports = [Port(number, number) for number in range(2, 20)]
    got = [world.lease(bytes((2, 0, 0, 0, 0, port.number)), port) for port in ports]
    assert sum(map(bool, got)) == 11
    assert world.counters["dhcp_no_address"] == len(ports) - 11


def test_what_becomes_of_a_lease_is_told_once() -> None:
    world = World()
    address = world.lease(ALICE, AT_ALICE, "alice")
    assert world.told == [
        {
            "word": "given",
            "port": 2,
            "born": 20,
            "mac": "52:54:00:00:00:0a",
            "address": address,
            "host": "alice",
            "more": 0,
        }
    ]
    world.words()
    for _ in range(5):
        world.say(REQUEST, ALICE, AT_ALICE, own=address)
    assert world.words() == ["renewed"]
    world.say(RELEASE, ALICE, AT_ALICE, own=address)
    assert world.words() == ["released"]
    world.lease(ALICE, AT_ALICE)
    world.say(REQUEST, ALICE, AT_ALICE, own=address)
    assert world.words() == ["given", "renewed"]
    world.say(DECLINE, ALICE, AT_ALICE, {ASKED: socket.inet_aton(address)})
    assert world.words() == ["declined"]


def test_why_a_lease_has_ended_is_told() -> None:
    world = World()
    world.lease(ALICE, AT_ALICE)
    world.leases.left(AT_ALICE, 0.0)
    assert world.words() == ["given", "left"]
    world.lease(ALICE, AT_ALICE)
    other = {SERVER_ID: socket.inet_aton("192.168.127.9"), ASKED: socket.inet_aton("192.168.127.40")}
    world.say(REQUEST, ALICE, AT_ALICE, other)
    assert world.words() == ["given", "other-server"]
    world.lease(ALICE, AT_ALICE)
    world.leases.expire(LEASE_S)
    assert world.words() == ["given", "expired"]
    world.say(DISCOVER, MALLORY, AT_MALLORY)
    world.leases.expire(2 * LEASE_S)
    assert world.words() == []  # an offer that nobody takes is no lease


def test_why_a_guest_gets_no_lease_is_told() -> None:
    world = World()
    address = world.lease(ALICE, AT_ALICE)
    world.words()
    world.say(REQUEST, MALLORY, AT_MALLORY, {ASKED: socket.inet_aton(address)})
    world.say(REQUEST, MALLORY, AT_MALLORY, {ASKED: socket.inet_aton("10.0.0.1")})
    assert [(each["word"], each["address"]) for each in world.told] == [
        ("in-use", address),
        ("not-offered", "10.0.0.1"),
    ]
    small = World(subnet="192.168.9.0/28")
    while small.lease(bytes((0x52, 0, 0, 0, 0, len(small.leases))), Port(len(small.leases), 1)):
        pass
    assert small.words()[-1] == "no-address"


def test_a_guest_that_asks_all_the_time_is_told_of_rarely_and_hides_no_other() -> None:
    world = World()
    for number in range(1000):
        world.lease(bytes((0x52, 0, 0, 0, number >> 8, number & 255)), AT_MALLORY)
    assert len(world.words()) == BURST
    world.lease(ALICE, AT_ALICE)
    assert [(each["word"], each["port"], each["more"]) for each in world.told] == [("given", 2, 0)]
    world.words()
    world.now = 2.0
    world.say(REQUEST, MALLORY, AT_MALLORY, {ASKED: socket.inet_aton("10.0.0.1")})
    assert [(each["word"], each["more"]) for each in world.told] == [("not-offered", 1000 - BURST)]

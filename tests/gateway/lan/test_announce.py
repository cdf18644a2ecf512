"""Router advertisements: their contents, times and destinations."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address

from forwarder.names import GATEWAY_MAC
from gateway.lan import frames
from gateway.lan.announce import EVERY_S, QUICK_S, QUICKLY, WATCH_S, Announcer, has_default_route, link_local
from gateway.lan.frames import Solicitation
from gateway.settings import read

GUEST = b"\x52\x54\0\0\0\x01"
ALL = bytes.fromhex("333300000001")
SETTINGS = read({"mtu": 9000, "search-domain": ["lab.example"]})


class World:
    """An announcer, and the frames that it has sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.way_out = False
        self.announcer = Announcer(SETTINGS, lambda: self.way_out, self.sent.append)

    def lifetimes(self) -> list[int]:
        """Return how long each frame says that the gateway is a router, and forget them."""
        found = [int.from_bytes(frame[60:62], "big") for frame in self.sent]
        self.sent.clear()
        return found


def test_a_guest_that_asks_is_answered_alone() -> None:
    world = World()
    world.announcer.solicited(Solicitation(GUEST, link_local(GUEST)))
    world.announcer.solicited(Solicitation(GUEST, bytes(16)))
    for frame, to in zip(world.sent, (link_local(GUEST), IPv6Address("ff02::1").packed), strict=True):
        assert (frame[:6], frame[6:12], frame[12:14]) == (GUEST, GATEWAY_MAC, b"\x86\xdd")
        assert frame[21] == 255  # no router in between
        assert (frame[22:38], frame[38:54]) == (link_local(GATEWAY_MAC), to)
        assert (
            frames._checksum(frames._pseudo(frame[22:38], to, frames.ICMPV6, len(frame) - 54) + frame[54:])
            == 0
        )
    assert socket.inet_ntop(socket.AF_INET6, link_local(GATEWAY_MAC)) == "fe80::5894:efff:fee4:cdd"


def test_the_prefix_the_mtu_and_the_resolver_are_announced() -> None:
    world = World()
    world.announcer.solicited(Solicitation(GUEST, link_local(GUEST)))
    (frame,) = world.sent
    body = frame[54:]
    assert body[0] == 134
    options, at = {}, 16
    while at < len(body):
        options[body[at]] = body[at : at + 8 * body[at + 1]]
        at += 8 * body[at + 1]
    assert at == len(body)
    policy = SETTINGS.policy
    assert options[1][2:] == GATEWAY_MAC
    assert options[3][2:4] == b"\x40\xc0"
    assert options[3][16:] == policy.prefix.network_address.packed
    assert int.from_bytes(options[5][4:8], "big") == 9000
    assert options[25][8:] == policy.prefix[1].packed
    assert options[31][8:].rstrip(b"\0") == b"\3lab\7example"


def test_announcements_are_frequent_after_a_vm_has_come_and_rare_later() -> None:
    world = World()
    times = []
    now = 0.0
    while now < 200:
        before = len(world.sent)
        world.announcer.tick(now)
        if len(world.sent) > before:
            times.append(now)
        assert world.announcer.deadline() > now
        now = world.announcer.deadline()
    assert all(frame[:6] == ALL for frame in world.sent)
    quick = [QUICK_S * turn for turn in range(QUICKLY + 1)]
    assert times[: QUICKLY + 1] == quick
    assert times[QUICKLY + 1 :] == [quick[-1] + EVERY_S * turn for turn in range(1, 4)]
    world.announcer.joined(now)
    assert world.announcer.deadline() <= now + QUICK_S


def test_a_way_out_that_comes_and_goes_is_reported_at_once() -> None:
    world = World()
    for turn in range(QUICKLY + 1):
        world.announcer.tick(QUICK_S * turn)
    assert world.lifetimes() == [0] * (QUICKLY + 1)
    now = QUICK_S * QUICKLY  # from now on nothing else is due for a minute
    for way_out in (True, False, True):
        now += WATCH_S
        world.announcer.tick(now)
        assert world.lifetimes() == []
        world.way_out = way_out
        now += WATCH_S
        world.announcer.tick(now)
        assert world.lifetimes() == [180 if way_out else 0]


def test_a_default_route_is_one_that_leads_somewhere() -> None:
    none = "0" * 32
    unreachable = f"{none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200 lo\n"
    lan = f"fd{'0' * 30} 40 {none} 00 {none} 00000100 00000001 00000000 00000001 eth0\n"
    out = f"{none} 00 {none} 00 fe80{'0' * 28} 00000400 00000001 00000000 00450003 eth0\n"
    assert not has_default_route("")
    assert not has_default_route(unreachable + lan)
    assert has_default_route(unreachable + lan + out)

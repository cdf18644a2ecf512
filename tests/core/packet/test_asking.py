"""What a VM asks of the gateway beyond its share is dropped by its own worker, in every disguise."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest

from tests.helpers.core.claims import IPV4, IPV6, TCP, UDP, ethernet, tagged
from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac

GATEWAY, SPEAKER, NEIGHBOUR = 1, 2, 3
GATEWAY_MAC, ME, OTHER = mac(GATEWAY), mac(SPEAKER), mac(NEIGHBOUR)
SYN, ACK = 2, 16
BURST = {"names": 400, "streams": 100, "leases": 300, "connections": 1000}
"""As in asking.c."""
PER_S = {"names": 1250, "streams": 100, "leases": 250, "connections": 100}
FLOOR = {"names": 50, "streams": 10, "leases": 20, "connections": 100}
TIMES = 4
"""Of the burst, asked at once."""


def datagram(port: int, to: bytes = GATEWAY_MAC, *, options: bytes = b"", six: bool = False) -> bytes:
    body = struct.pack("!HHHH", 1024, port, 28, 0) + bytes(20)
    return packet(UDP, body, to, options=options, six=six)


def segment(
    port: int, flags: int, to: bytes = GATEWAY_MAC, source: bytes = ME, *, six: bool = False, number: int = 0
) -> bytes:
    body = struct.pack("!HHIIBBHHH", 1024 + number, port, number, 0, 0x50, flags, 64000, 0, 0)
    return packet(TCP, body, to, source, six=six)


def packet(
    protocol: int, body: bytes, to: bytes, source: bytes = ME, *, options: bytes = b"", six: bool = False
) -> bytes:
    if six:
        return ethernet(
            source, IPV6, struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + bytes(32) + body, to
        )
    first = 0x45 + len(options) // 4
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(options) + len(body), 1, 0, 64, protocol, 0)
    return ethernet(source, IPV4, head + bytes(8) + options + body, to)


QUESTIONS: dict[str, tuple[str, bytes]] = {
    "names": ("names", datagram(53)),
    "names by IPv6": ("names", datagram(53, six=True)),
    "names to all": ("names", datagram(53, BROADCAST)),
    "names behind options": ("names", datagram(53, options=b"\1\1\1\0")),
    "names in VLAN 0": ("names", tagged(datagram(53), b"\x81\0\0\0")),
    "names behind two tags": ("names", tagged(datagram(53), b"\x88\xa8\0\0", b"\x81\0\0\0")),
    "names by TCP": ("streams", segment(53, SYN)),
    "names by TCP and IPv6": ("streams", segment(53, SYN, six=True)),
    "leases": ("leases", datagram(67, BROADCAST)),
    "leases of the gateway alone": ("leases", datagram(67)),
    "connections": ("connections", segment(80, SYN)),
    "connections with more flags": ("connections", segment(80, SYN | 0xC0)),
    "connections by IPv6": ("connections", segment(80, SYN, six=True)),
    "connections in VLAN 0": ("connections", tagged(segment(80, SYN), b"\x81\0\0\0")),
}
OTHERS = {
    "names of another VM": datagram(53, OTHER),
    "connections to another VM": segment(80, SYN, OTHER),
    "answers to names": datagram(5353),
    "answers to connections": segment(80, SYN | ACK),
    "segments of a connection": segment(80, ACK),
    "no IP": frame(GATEWAY_MAC, ME),
    "a cut packet": datagram(53)[:30],
}


class Lan:
    """A gateway, a VM whose questions are limited, and another VM."""

    def __init__(self, switch: MiniSwitch, kind: str = "stream") -> None:
        self.switch = switch
        self.gateway = switch.add(GATEWAY, "stream")
        self.speaker = switch.add(SPEAKER, kind)
        self.neighbour = switch.add(NEIGHBOUR, "stream")
        switch.engines[SPEAKER].limit_questions(GATEWAY_MAC)
        self.gateway.send(frame(BROADCAST, GATEWAY_MAC))
        self.neighbour.send(frame(BROADCAST, OTHER))
        switch.settle()
        self.hears()

    def hears(self) -> list[bytes]:
        """Return what has arrived anywhere."""
        self.switch.settle()
        self.speaker.received()
        return list(dict.fromkeys(self.gateway.received() + self.neighbour.received()))

    def asks(self, said: bytes, count: int) -> int:
        """Send it so often; return how many arrive at the gateway or at the neighbour."""
        arrived = 0
        for _ in range(0, count, 50):
            read = self.switch.counters(SPEAKER)["rx_frames"]
            self.speaker.send(*[said] * 50)
            self.switch.settle()
            while self.switch.counters(SPEAKER)["rx_frames"] < read + 50:  # it is read later
                self.switch.settle()
            arrived += max(vm.received().count(said) for vm in (self.gateway, self.neighbour))
        return arrived

    @property
    def dropped(self) -> int:
        return self.switch.counters(SPEAKER)["over_rate"]


@pytest.fixture
def lan() -> Iterator[Lan]:
    with MiniSwitch() as switch:
        yield Lan(switch)


@pytest.mark.parametrize("what", QUESTIONS)
def test_a_flood_of_questions_is_dropped_after_its_burst(lan: Lan, what: str) -> None:
    kind, said = QUESTIONS[what]
    count = TIMES * BURST[kind]
    begin = time.monotonic()
    arrived = lan.asks(said, count)
    spent = time.monotonic() - begin
    assert BURST[kind] <= arrived <= BURST[kind] + spent * PER_S[kind] + 1
    assert lan.dropped == count - arrived


@pytest.mark.parametrize("what", OTHERS)
def test_other_frames_are_not_limited(lan: Lan, what: str) -> None:
    assert (lan.asks(OTHERS[what], 2000), lan.dropped) == (2000, 0)


def test_a_flood_that_goes_on_gets_the_floor(lan: Lan) -> None:
    lan.asks(datagram(53), 2000)
    begin = last = time.monotonic()
    arrived, slowest = 0, 0.0
    for _ in range(40):
        arrived += lan.asks(datagram(53), 50)
        slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
    spent = last - begin
    assert 1 <= arrived <= spent * PER_S["names"] + 2
    if 50 / slowest > 3 * PER_S["names"]:  # on a slow machine 50 questions are no flood
        assert arrived <= spent * FLOOR["names"] + 2


def test_a_flood_of_one_kind_takes_nothing_of_another(lan: Lan) -> None:
    lan.asks(datagram(53), 2000)
    assert lan.asks(datagram(67, BROADCAST), 50) == 50
    assert lan.asks(segment(80, SYN), 50) == 50
    assert lan.asks(segment(53, SYN), 50) == 50


def connect(lan: Lan, count: int, flags: int, source: bytes = GATEWAY_MAC) -> int:
    """Open connections, each answered by this; return how many of them reached the gateway."""
    reached = 0
    by = lan.gateway if source == GATEWAY_MAC else lan.neighbour
    for _ in range(0, count, 50):
        reached += lan.asks(segment(80, SYN), 50)
        by.send(*[segment(1024, flags, ME, source)] * 50)
        lan.switch.settle()
        lan.speaker.received()
    return reached


def test_answered_connections_are_not_counted(lan: Lan) -> None:
    assert (connect(lan, 3 * BURST["connections"], SYN | ACK), lan.dropped) == (3000, 0)


@pytest.mark.parametrize(
    ("flags", "source"),
    [(4 | ACK, GATEWAY_MAC), (ACK, GATEWAY_MAC), (SYN | ACK, OTHER)],
    ids=["resets", "others", "forged"],
)
def test_what_is_no_answer_of_the_gateway_gives_nothing_back(lan: Lan, flags: int, source: bytes) -> None:
    begin = time.monotonic()
    reached = connect(lan, 3 * BURST["connections"], flags, source)
    assert reached <= BURST["connections"] + (time.monotonic() - begin) * PER_S["connections"] + 1
    assert lan.dropped == 3000 - reached


def test_without_a_gateway_nothing_is_limited(lan: Lan) -> None:
    lan.switch.engines[SPEAKER].limit_questions(b"")
    assert lan.asks(datagram(53), 2000) == 2000
    with pytest.raises(ValueError, match="6 bytes"):
        lan.switch.engines[SPEAKER].limit_questions(b"\1\2\3")


@pytest.mark.parametrize("kind", [*KINDS])
def test_frames_around_dropped_questions_arrive_in_order_and_whole(kind: str) -> None:
    with MiniSwitch() as switch:
        lan = Lan(switch, kind)
        lan.asks(datagram(67, BROADCAST), 1000)
        dropped = lan.dropped
        good = [frame(GATEWAY_MAC, ME, bytes((number,)), 60 + number) for number in range(40)]
        for each in range(0, 40, 4):  # a burst of them waits for its time
            lan.speaker.send(*[said for one in good[each : each + 4] for said in (datagram(67), one)])
            lan.switch.settle()
        arrived = [each for each in lan.gateway.received() if each != datagram(67)]
        assert arrived == good
        assert lan.dropped > dropped

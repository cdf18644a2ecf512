"""What a port's page says of its VM's dealings: what it sent to whom, and which neighbours it asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from forwarder import _core
from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac

NS_GROUP = bytes.fromhex("3333ff000009")
Question = tuple[bytes, bytes, float, float, int, int]


def arp(sender: str, target: str, operation: int = 1) -> bytes:
    head = BROADCAST + mac(1) + bytes.fromhex("0806000108000604") + operation.to_bytes(2, "big")
    both = mac(1) + IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    return (head + both).ljust(60, b"\0")


def solicitation(sender: str, target: str) -> bytes:
    body = bytes([135, 0, 0, 0, 0, 0, 0, 0]) + IPv6Address(target).packed
    ip = bytes.fromhex("60000000") + len(body).to_bytes(2, "big") + bytes([58, 255])
    addresses = IPv6Address(sender).packed + IPv6Address("ff02::1:ff00:9").packed
    return NS_GROUP + mac(1) + bytes.fromhex("86dd") + ip + addresses + body


def mapped(text: str) -> bytes:
    return bytes(10) + b"\xff\xff" + IPv4Address(text).packed


@pytest.fixture(params=KINDS)
def switch(request: pytest.FixtureRequest) -> Iterator[MiniSwitch]:
    with MiniSwitch() as mini:
        for port in (1, 2, 3):
            mini.add(port, request.param)
        mini.greet()
        yield mini


def asked(switch: MiniSwitch, *frames: bytes) -> list[Question]:
    for each in frames:
        switch.vms[1].send(each)
        switch.settle()
    return _core.StatsPage(switch.stats[1]).questions()


def test_what_was_sent_to_each_peer(switch: MiniSwitch) -> None:
    before = time.monotonic()
    for size in (60, 1514, 200):
        switch.vms[1].send(frame(mac(2), mac(1), size=size))
        switch.settle()
    switch.vms[3].send(frame(mac(1), mac(3), size=70))
    switch.settle()
    (row,) = _core.StatsPage(switch.stats[1]).dealings()
    assert row[:3] == (2, switch.attachments[2], 3)
    assert before - 1 <= row[3] <= time.monotonic()
    assert row[4] == 1514
    assert row[5] == row[3]
    assert [each[0] for each in _core.StatsPage(switch.stats[3]).dealings()] == [1]
    assert _core.StatsPage(switch.stats[2]).dealings() == []


def test_what_was_sent_to_a_predecessor_is_forgotten(switch: MiniSwitch) -> None:
    switch.vms[1].send(frame(mac(2), mac(1)))
    switch.settle()
    switch.remove(2)
    switch.add(2, "stream")
    assert _core.StatsPage(switch.stats[1]).dealings() == []


def test_questions_of_one_series_are_one_row(switch: MiniSwitch) -> None:
    ((sender, target, first, last, times, vlan),) = asked(switch, *[arp("10.0.0.7", "10.0.0.9")] * 3)
    assert (sender, target, times, vlan) == (mapped("10.0.0.7"), mapped("10.0.0.9"), 3, 0)
    assert first <= last <= time.monotonic()


def test_neighbour_solicitations_are_questions(switch: MiniSwitch) -> None:
    ((sender, target, _, _, times, _),) = asked(switch, solicitation("fd00::7", "fd00::9"))
    assert (sender, target, times) == (IPv6Address("fd00::7").packed, IPv6Address("fd00::9").packed, 1)


def tagged(frame: bytes, *tags: str) -> bytes:
    return frame[:12] + bytes.fromhex("".join(tags)) + frame[12:]


@pytest.mark.parametrize(
    ("tags", "vlan"),
    [(["8100000a"], 10), (["8100f00a"], 10), (["81002000"], 0), (["88a80fff", "8100000a"], 4095)],
)
@pytest.mark.parametrize("each", [arp("10.0.0.7", "10.0.0.9"), solicitation("fd00::7", "fd00::9")])
def test_a_question_has_the_vlan_of_its_outer_tag(
    switch: MiniSwitch, each: bytes, tags: list[str], vlan: int
) -> None:
    ((*_, times, found),) = asked(switch, tagged(each, *tags))
    assert (times, found) == (1, vlan)
    assert len(asked(switch, tagged(each, "81000c0c"))) == 2


def test_a_probe_has_no_sender(switch: MiniSwitch) -> None:
    ((sender, target, *_),) = asked(switch, arp("0.0.0.0", "10.0.0.9"))
    assert (sender, target) == (bytes(16), mapped("10.0.0.9"))


@pytest.mark.parametrize(
    "each",
    [
        arp("10.0.0.7", "10.0.0.9", operation=3),
        arp("10.0.0.7", "10.0.0.9")[:30],
        solicitation("fd00::7", "fd00::9")[:70],
        BROADCAST + mac(1) + b"\x08\x06",
        BROADCAST + mac(1) + b"\x81\x00",
        BROADCAST + mac(1) + bytes.fromhex("8100000a"),
        BROADCAST + mac(1) + bytes.fromhex("8100000a8100000b8100000c0806") + bytes(60),
        BROADCAST + mac(1) + b"\x86\xdd" + bytes(80),
        frame(BROADCAST, mac(1)),
    ],
)
def test_what_is_no_question_is_not_noted(switch: MiniSwitch, each: bytes) -> None:
    assert asked(switch, each) == []


def advertisement(target: str) -> bytes:
    body = bytes([136, 0, 0, 0, 0x60, 0, 0, 0]) + IPv6Address(target).packed
    ip = bytes.fromhex("60000000") + len(body).to_bytes(2, "big") + bytes([58, 255])
    addresses = IPv6Address("fe80::1").packed + IPv6Address("fe80::2").packed
    return BROADCAST + mac(1) + bytes.fromhex("86dd") + ip + addresses + body


ANSWERS = [
    (arp("10.0.0.7", "10.0.0.9", operation=2), mapped("10.0.0.7")),
    (advertisement("fd00::7"), IPv6Address("fd00::7").packed),
]


@pytest.mark.parametrize("vlan", ["", "8100000a"])
@pytest.mark.parametrize(("answer", "address"), ANSWERS)
def test_an_answer_says_an_address_and_asks_for_none(
    switch: MiniSwitch, answer: bytes, address: bytes, vlan: str
) -> None:
    ((sender, target, *_),) = asked(switch, tagged(answer, vlan))
    assert (sender, target) == (address, bytes(16))


@pytest.mark.parametrize(("each", "address"), [*ANSWERS, (arp("10.0.0.7", "10.0.0.2"), mapped("10.0.0.7"))])
def test_a_frame_about_neighbours_for_one_port_says_an_address_and_is_no_data(
    switch: MiniSwitch, each: bytes, address: bytes
) -> None:
    ((sender, target, *_),) = asked(switch, mac(2) + each[6:])
    assert (sender, target) == (address, bytes(16))
    (row,) = _core.StatsPage(switch.stats[1]).dealings()
    assert row[2] == 1
    assert row[5] == 0.0
    asked(switch, frame(mac(2), mac(1)))
    ((*_, sent_at, _, data_at),) = _core.StatsPage(switch.stats[1]).dealings()
    assert data_at == sent_at


def test_a_scan_pushes_out_the_oldest_questions_of_its_own_port_only(switch: MiniSwitch) -> None:
    switch.vms[2].send(arp("10.0.0.2", "10.0.0.99"))
    switch.settle()
    rows = asked(switch, *[arp("10.0.0.7", f"10.0.1.{number}") for number in range(1, 101)])
    assert len(rows) == 16
    assert {row[1] for row in rows} == {mapped(f"10.0.1.{number}") for number in range(85, 101)}
    assert len(_core.StatsPage(switch.stats[2]).questions()) == 1


def test_what_a_storm_limit_drops_is_no_question(switch: MiniSwitch) -> None:
    switch.engines[1].set_limits(broadcast=1, multicast=0, unknown=0, bytes=0, macs=0)
    rows = asked(switch, *[arp("10.0.0.7", f"10.0.1.{number}") for number in range(1, 11)])
    assert 1 <= len(rows) < 10

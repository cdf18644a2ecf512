"""Episodes of what VMs may not do, and addresses that change ports: from figures of a page to events."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from forwarder.names import Policy, PortRecord
from supervisor.base.logs import log, record_of
from supervisor.fleet.misuse import EPISODES, QUIET_S, SCANS, SHARE, Misuse

MAC = b"\2\0\0\0\0\1"
ZERO = dict.fromkeys((*EPISODES, "rx_frames", "tx_frames"), 0)


def port(number: int) -> PortRecord:
    return PortRecord(number, number, number, f"vm-{number}", "qemu", Policy())


class Collect(logging.Handler):
    """Collects the events of new addresses, and the others."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = record_of(record)
        (self.new if event["event"] == "mac-new" else self.others).append(event)


@pytest.fixture
def collected() -> Iterator[Collect]:
    handler, before = Collect(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.fixture
def said(collected: Collect) -> list[dict[str, Any]]:
    """What was said but of new addresses."""
    return collected.others


class Pages:
    """Looks at one port after the other, at a time that tests move. It is each port's page itself."""

    def __init__(self) -> None:
        self.misuse = Misuse()
        self.now = 0.0
        self.rx = 0
        self.scanned = 0
        self.last_from: dict[bytes, int] = {}
        self._counters = ZERO
        self._macs: list[tuple[bytes, int, bool]] = []

    def look(self, number: int, macs: tuple[bytes, ...] = (), age: int = 0, **counters: int) -> None:
        self.rx += bool(macs)
        self._counters = ZERO | {"rx_frames": self.rx} | counters
        self._macs = [(mac, age, False) for mac in macs]
        self.misuse.look(port(number), self, self.now)

    def counters(self) -> dict[str, int]:
        return self._counters

    def macs(self, port: int) -> list[tuple[bytes, int, bool]]:
        self.scanned += 1
        return self._macs

    def port_of(self, mac: bytes) -> tuple[int, int]:
        return self.last_from.get(mac, 0), 1


@pytest.mark.parametrize("counter", EPISODES)
def test_an_hour_of_refused_frames_is_two_events(said: list[dict[str, Any]], counter: str) -> None:
    pages = Pages()
    pages.look(1)
    for second in range(1, 3600):
        pages.now = float(second)
        pages.look(1, **{counter: 10 * second})
    event = EPISODES[counter][0]
    assert [(each["event"], each["port"], each["frames"]) for each in said] == [(event, 1, 10)]
    pages.now += QUIET_S
    pages.look(1, **{counter: 35990})
    assert (said[1]["event"], said[1]["frames"]) == (f"{event}-end", 35990)
    pages.look(1, **{counter: 35991})
    assert (said[2]["event"], said[2]["frames"]) == (event, 1)
    assert len(said) == 3


def test_counts_from_before_this_supervisor_are_no_event(said: list[dict[str, Any]]) -> None:
    Pages().look(1, spoofed=1000)
    assert said == []


def test_an_address_that_no_vm_used_before_is_an_event(collected: Collect) -> None:
    pages = Pages()
    for age in (100, 101):  # it was used long before this look
        pages.look(1, (MAC,), age=age)
    pages.look(2, (MAC,))
    assert [(each["port"], each["name"], each["mac"]) for each in collected.new] == [
        (1, "vm-1", "02:00:00:00:00:01")
    ]
    pages.misuse.forget(2)
    pages.look(1, (MAC,))
    assert len(collected.new) == 2


def test_addresses_of_a_port_that_was_taken_over_are_not_new(collected: Collect) -> None:
    pages, later = Pages(), b"\2\0\0\0\0\2"
    pages.misuse.inherit(1)
    pages.look(1, (MAC,))
    assert collected.new == []
    pages.look(1, (MAC, later))
    assert [each["mac"] for each in collected.new] == ["02:00:00:00:00:02"]
    pages.misuse.inherit(2)
    pages.misuse.forget(2)  # the number is given again
    pages.look(2, (b"\2\0\0\0\0\3",))
    assert len(collected.new) == 2


def test_a_port_that_had_no_turn_is_read_at_a_later_beat(collected: Collect) -> None:
    pages = Pages()
    for second in range(1 + 250 // SCANS):
        pages.now = float(second)
        for number in range(1, 251):
            pages.look(number, (number.to_bytes(6, "big"),))
            pages.rx = 0  # each port has had one frame, and no more
    assert {each["port"] for each in collected.new} == set(range(1, 251))
    before = pages.scanned
    pages.now += 1.0
    for number in range(1, 251):
        pages.look(number, (number.to_bytes(6, "big"),))
        pages.rx = 0
    assert pages.scanned == before


def test_an_address_that_moves_once_is_reported_once(said: list[dict[str, Any]]) -> None:
    pages = Pages()
    pages.look(1, (MAC,))
    for second in range(100):
        pages.now = float(second)
        pages.look(2, (MAC,))
        pages.look(1, (MAC,), age=second + 10)  # its table has it still, and no frame has come from it
    assert [(each["event"], each["mac"], each["port"], each["former_port"]) for each in said] == [
        ("mac-moved", "02:00:00:00:00:01", 2, 1)
    ]


def test_two_vms_with_one_address_are_two_events_until_they_are_quiet(said: list[dict[str, Any]]) -> None:
    pages = Pages()
    for second in range(600):
        pages.now = float(second)
        pages.look(1, (MAC,))
        pages.look(2, (MAC,))
    assert [each["event"] for each in said] == ["mac-moved", "mac-flapping"]
    assert "two VMs use one address" in said[1]["message"]
    pages.now += QUIET_S
    pages.look(1, (MAC,))
    assert said[2]["event"] == "mac-moved"


def test_an_address_that_settles_is_an_event(said: list[dict[str, Any]]) -> None:
    pages = Pages()
    for number in (1, 2, 1, 2, 1):
        pages.look(number, (MAC,))
    pages.now += QUIET_S - 1
    pages.look(1, (MAC,))
    assert [each["event"] for each in said] == ["mac-moved", "mac-flapping"]
    for _ in range(3):
        pages.now += QUIET_S
        pages.look(1, (MAC,))
    assert [(each["event"], each["port"]) for each in said[2:]] == [("mac-flapping-end", 1)]


def test_a_vm_whose_frames_come_from_elsewhere_has_lost_its_address(said: list[dict[str, Any]]) -> None:
    """Both stats pages name the other port, because each port hears the other's flood last."""
    pages = Pages()
    pages.look(1, (MAC,))
    for number, other in ((1, 2), (2, 1)):
        pages.last_from[MAC] = other
        pages.rx += 1
        pages.look(number)
    assert [(each["event"], each["port"]) for each in said] == [("mac-moved", 2), ("mac-flapping", 1)]


def test_an_address_whose_port_has_gone_has_not_moved(said: list[dict[str, Any]]) -> None:
    pages = Pages()
    pages.look(1, (MAC,))
    pages.misuse.forget(1)
    pages.look(2, (MAC,))
    assert said == []


def test_a_vm_that_makes_up_addresses_takes_no_room_of_the_others(said: list[dict[str, Any]]) -> None:
    pages = Pages()
    made_up = tuple(number.to_bytes(6, "big") for number in range(1000, 1000 + 20 * SHARE))
    pages.look(1, made_up)
    pages.look(2, (MAC,))
    assert said == []
    pages.look(3, (MAC, *made_up))
    assert [each["mac"] for each in said if each["former_port"] == 2] == ["02:00:00:00:00:01"]
    assert len([each for each in said if each["former_port"] == 1]) == SHARE
    pages.misuse.forget(3)
    pages.look(2, (MAC,))
    assert len(said) == SHARE + 1


def test_tables_are_read_of_few_ports_in_a_second() -> None:
    pages = Pages()
    for number in range(1, 251):
        pages.look(number, (MAC,))
    assert pages.scanned == SCANS
    pages.now = 1.0
    for number in range(1, 251):
        pages.look(number, (MAC,))
    assert pages.scanned == 2 * SCANS

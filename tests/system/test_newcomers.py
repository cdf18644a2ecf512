"""VMs that have just come lose nothing: what they ask in their first moment is heard, and its answers are."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
from collections.abc import Callable

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

StartSwitch = Callable[..., Switch]
ASKED, ANSWERED = b"\x88\xb5ask:", b"\x88\xb5say:"


def ask(vm: FakeVM, number: int) -> None:
    """Broadcast a question, as DHCP and ARP do."""
    vm.send((BROADCAST + mac(number) + ASKED + number.to_bytes(2, "big")).ljust(60, b"\0"))


def answer(vm: FakeVM, number: int, asked: int) -> None:
    """Broadcast an answer to a question."""
    words = ANSWERED + asked.to_bytes(2, "big") + number.to_bytes(2, "big")
    vm.send((BROADCAST + mac(number) + words).ljust(60, b"\0"))


class Crowd:
    """VMs that ask as soon as they are connected and answer every question that they hear, at once."""

    def __init__(self) -> None:
        self.vms: dict[int, FakeVM] = {}
        self.answered: set[tuple[int, int]] = set()
        """(the VM that asked, the VM that answered)."""
        self.heard: set[tuple[int, int]] = set()

    def add(self, number: int, vm: FakeVM) -> None:
        self.vms[number] = vm
        ask(vm, number)

    def turn(self) -> None:
        """Take what has come."""
        for number, vm in self.vms.items():
            for frame in vm.drain():
                asked = int.from_bytes(frame[18:20], "big")
                if frame[12:18] == ASKED:
                    self.answered.add((asked, number))
                    answer(vm, number, asked)
                elif frame[12:18] == ANSWERED and asked == number:
                    self.heard.add((number, int.from_bytes(frame[20:22], "big")))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        def turned() -> bool:
            self.turn()
            return condition()

        wait_for(turned, what)

    def lost(self) -> set[tuple[int, int]]:
        return self.answered - self.heard


@pytest.mark.parametrize(("kind", "at_once"), [("unix", 40), ("unixpacket", 10), ("connect", 10)])
def test_broadcast_answers_reach_newcomers_that_asked_at_once(
    switch: StartSwitch, kind: str, at_once: int
) -> None:
    running = switch(qemu=True, bess=True, network=True)
    crowd = Crowd()
    crowd.add(1, running.connect("unix"))
    running.wait_live(1)
    for newcomers in (range(2, 2 + at_once), range(100, 100 + at_once)):
        for number in newcomers:
            crowd.add(number, running.connect(kind))
        wanted = {(number, 1) for number in newcomers}
        crowd.until(lambda wanted=wanted: wanted <= crowd.answered, "all questions to be heard")  # type: ignore[misc]
        crowd.until(lambda: not crowd.lost(), f"answers, of which these are missing: {crowd.lost()}")
    drops = [port["drops"] for port in running.json("stats")["ports"]]
    assert not any(drop["egress_full"] or drop["storm"] for drop in drops)


def kill_worker(running: Switch, name: str) -> None:
    """Kill the worker of a port, and wait until it reads nothing any more."""
    worker = next(port["worker"]["pid"] for port in running.json("status")["ports"] if port["name"] == name)
    with contextlib.closing(io.FileIO(os.pidfd_open(worker))) as ended:
        os.kill(worker, signal.SIGKILL)
        assert select.select([ended], [], [], PATIENCE)[0]


def test_what_is_asked_while_a_stations_worker_is_killed_is_heard(switch: StartSwitch) -> None:
    running = switch(bess=True, network=True)
    crowd = Crowd()
    crowd.add(1, running.connect("unixpacket"))
    running.wait_live(1)
    station = running.json("status")["ports"][0]["name"]
    wanted: set[tuple[int, int]] = set()
    for number in range(2, 6):  # fewer than the restart budget of a minute
        kill_worker(running, station)
        crowd.add(number, running.connect("unixpacket"))
        for old in range(2, number):
            crowd.answered.discard((old, 1))
            ask(crowd.vms[old], old)
        wanted.add((number, 1))
        crowd.until(lambda: wanted <= crowd.answered, "all questions to be heard")
        crowd.until(lambda: wanted <= crowd.heard, "all answers")
        running.wait_live(number)

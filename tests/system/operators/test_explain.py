"""``supervisor explain`` on a real switch: each fault is made, and the sentence names it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.gateway.place import MAC, Place, process
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, mac
from tests.helpers.guests.ports import A_RING_FULL, attach, meet
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

StartSwitch = Callable[..., Switch]


def explain(switch: Switch, a: str, b: str) -> dict[str, Any]:
    done = switch.command("explain", a, b, "--json", check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if told["talk"] else 1)
    return told


def wait_told(switch: Switch, a: str, b: str, words: str, again: Callable[[], object] = lambda: None) -> str:
    """Wait until the answer has these words, doing something ``again`` meanwhile; return it."""
    last: dict[str, Any] = {}

    def told() -> bool:
        again()
        last.update(explain(switch, a, b))
        return words in last["answer"] and not last["talk"]

    wait_for(told, lambda: f"{words!r} in {last.get('answer')!r}")
    return str(last["answer"])


@pytest.fixture
def pair(switch: StartSwitch) -> tuple[Switch, FakeVM, FakeVM]:
    running = switch()
    web, db = attach(running, "web"), attach(running, "db")
    running.wait_live(2)
    meet({1: web, 2: db})
    return running, web, db


def test_two_that_talk_by_name_number_and_mac(pair: tuple[Switch, FakeVM, FakeVM]) -> None:
    running = pair[0]

    def said() -> bool:
        return all(row["rx"]["frames"] for row in running.ports())

    wait_for(said, "what they sent to be counted")
    for a, b in (("web", "db"), ("1", "2"), (mac(1).hex(":"), "db")):
        assert explain(running, a, b)["talk"]
    text = running.command("explain", "web", "db").stdout
    assert text.startswith("web can reach db.\n")
    assert mac(1).hex(":") in text


def test_absent_ports_and_isolation_are_explained_in_both_directions(
    pair: tuple[Switch, FakeVM, FakeVM],
) -> None:
    running = pair[0]
    missing = running.command("explain", "web", "nobody", check=False)
    assert missing.returncode == 1
    assert missing.stdout.startswith("web cannot reach nobody: nobody: no VM of that name is attached")
    assert "no gateway" in explain(running, "web", "8.8.8.8")["answer"]
    running.command("set", "web", "isolated=true")
    assert "web is isolated, and db is not in its reach" in explain(running, "web", "db")["answer"]
    assert "web is isolated, and db is not in its reach" in explain(running, "db", "web")["answer"]
    running.command("set", "db", "isolated=true")
    assert "neither has the other in its reach" in explain(running, "web", "db")["answer"]
    running.command("set", "web", "reach=db")
    assert "db is isolated, and web is not in its reach" in explain(running, "web", "db")["answer"]
    running.command("set", "db", "reach=web")
    assert explain(running, "web", "db")["talk"]


def test_a_stalled_vm(pair: tuple[Switch, FakeVM, FakeVM]) -> None:
    running, web, db = pair
    frames = [build_frame(mac(2), mac(1), 1514)] * A_RING_FULL
    wait_told(running, "web", "db", "db is stalled", lambda: web.send(*frames))
    db.drain()


@pytest.mark.parametrize(
    ("setting", "first", "then", "words"),
    [
        ("pin=" + mac(1).hex(":"), 7, 8, "dropped as spoofed"),
        ("limit-broadcast=1", 1, 1, "ARP among them (storm)"),
        ("limit-macs=1", 7, 8, "limit-macs of 1"),
    ],
)
def test_refusals_of_a_port_are_explained(
    pair: tuple[Switch, FakeVM, FakeVM], setting: str, first: int, then: int, words: str
) -> None:
    running, web, db = pair
    running.command("set", "web", setting)

    def send() -> None:
        web.send(*[build_frame(BROADCAST, mac(number), 70) for number in (first, then)] * 5)
        db.drain()

    assert ": web " in wait_told(running, "web", "db", words, send)


def test_a_mac_at_two_ports(pair: tuple[Switch, FakeVM, FakeVM]) -> None:
    running, web, db = pair
    thief = attach(running, "thief")
    running.wait_live(3)
    vms = [db, thief]

    def send() -> None:
        vms.reverse()
        for vm in vms:
            vm.send(build_frame(BROADCAST, mac(2), 70))
        for vm in (web, *vms):
            vm.drain()

    answer = wait_told(running, "web", "db", "duplicate MAC", send)
    assert f"{mac(2).hex(':')} is a duplicate MAC address: VMs behind db and thief use it" in answer


def test_a_parked_port(pair: tuple[Switch, FakeVM, FakeVM]) -> None:
    running = pair[0]

    def kill() -> None:
        pid = next(row["worker"]["pid"] for row in running.ports() if row["name"] == "db")
        if pid:
            os.kill(pid, signal.SIGKILL)

    wait_told(running, "web", "db", "db is parked", kill)
    running.command("detach", "db")


@pytest.mark.guest
@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_the_gateway_its_policy_and_leases(place: Callable[..., Place]) -> None:
    here = place("--deny", "203.0.113.0/24")
    running = here.switch
    (guest,) = [row["name"] for row in running.ports() if row["name"] != "gateway"]
    here.guest.run("ping -c 1 -W 2 192.168.127.1 || true")
    assert "--deny names a network" in explain(running, guest, "203.0.113.9")["answer"]
    assert "metadata" in explain(running, guest, "169.254.169.254")["answer"]
    told = explain(running, guest, "8.8.8.8")
    assert told["talk"]
    assert [(each["check"], each["stops"]) for each in told["findings"]] in ([("address", False)], [])
    if told["findings"]:
        assert f"{guest} has no lease from the gateway" in told["answer"]
    assert explain(running, MAC, "host")["talk"]
    assert "no VM has that address" in explain(running, guest, "192.168.127.77")["answer"]
    pid = process(running, "gateway")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "stopped or stuck" in wait_told(running, guest, "8.8.8.8", "the gateway is silent")
    finally:
        os.kill(pid, signal.SIGCONT)

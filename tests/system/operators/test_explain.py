"""``supervisor explain`` on a real switch; ``test_faults`` makes each fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.gateway.place import MAC, Place
from tests.helpers.guests.fake_vm import FakeVM, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

StartSwitch = Callable[..., Switch]


def explain(switch: Switch, a: str, b: str) -> dict[str, Any]:
    done = switch.command("explain", a, b, "--json", check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if told["talk"] else 1)
    return told


def talk(pair: tuple[Switch, FakeVM, FakeVM], a: str, b: str) -> bool:
    """Whether they talk, while both VMs read: one that does not is taken for paused after five seconds."""
    for vm in pair[1:]:
        vm.drain()
    return bool(explain(pair[0], a, b)["talk"])


def test_two_that_talk_by_name_number_and_mac(pair: tuple[Switch, FakeVM, FakeVM]) -> None:
    running = pair[0]

    def said() -> bool:
        return all(row["rx"]["frames"] for row in running.ports())

    wait_for(said, "what they sent to be counted")
    for a, b in (("web", "db"), ("1", "2"), (mac(1).hex(":"), "db")):
        assert talk(pair, a, b)
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
    assert running.command("explain", "web", " ", check=False).returncode == 2
    odd = running.command("explain", "web", "\x1b[31m<b>", check=False).stdout
    assert "\x1b" not in odd
    assert "<b>: no VM of that name is attached" in odd
    assert "no gateway" in explain(running, "web", "8.8.8.8")["answer"]
    running.command("set", "web", "isolated=true")
    assert "web is isolated, and db is not in its reach" in explain(running, "web", "db")["answer"]
    assert "web is isolated, and db is not in its reach" in explain(running, "db", "web")["answer"]
    running.command("set", "db", "isolated=true")
    assert "neither has the other in its reach" in explain(running, "web", "db")["answer"]
    running.command("set", "web", "reach=db")
    assert "db is isolated, and web is not in its reach" in explain(running, "web", "db")["answer"]
    running.command("set", "db", "reach=web")
    wait_for(lambda: talk(pair, "web", "db"), "web and db to talk")


@pytest.mark.guest
@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_the_gateway_its_policy_and_leases(place: Callable[..., Place]) -> None:
    here = place()
    running = here.switch
    (guest,) = [row["name"] for row in running.ports() if row["name"] != "gateway"]
    here.guest.run("busybox ping -c 1 -W 2 192.168.127.1 || true")
    assert "metadata" in explain(running, guest, "169.254.169.254")["answer"]
    assert "this host has no way to there either" in explain(running, guest, "8.8.8.8")["answer"]
    here.host.run("ip route add default via 198.51.100.2")
    told = explain(running, guest, "8.8.8.8")
    assert told["talk"]
    assert [(each["check"], each["stops"]) for each in told["findings"]] in ([("address", False)], [])
    if told["findings"]:
        assert f"{guest} has no lease from the gateway" in told["answer"]
    assert explain(running, MAC, "host")["talk"]
    assert explain(running, guest, "fe80::5894:efff:fee4:cdd")["ends"][1]["name"] == "gateway"
    assert "no VM has leased that address" in explain(running, guest, "192.168.127.77")["answer"]

"""``supervisor events`` on real processes: events of VMs, operators and signals."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from typing import Any

from tests.helpers.gateway.link import Link
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.ports import A_RING_FULL, attach, meet, port
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.probes import kill_supervisor, worker_pids

StartSwitch = Callable[..., Switch]


def events(switch: Switch, *words: str) -> list[dict[str, Any]]:
    lines = switch.command("events", "--json", *words).stdout.splitlines()
    return [json.loads(line) for line in lines]


def of_kind(switch: Switch, kind: str) -> list[dict[str, Any]]:
    return [event for event in events(switch) if event["event"] == kind]


def wait_event(switch: Switch, kind: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = of_kind(switch, kind)
        return bool(found)

    wait_for(there, lambda: f"an event {kind}; there are {[event['event'] for event in events(switch)]}")
    return found[-1]


def test_a_port_comes_changes_and_goes(switch: StartSwitch) -> None:
    running = switch("--log-format", "json")
    web = attach(running, "web")
    other = attach(running, "other")
    running.wait_live(2)
    running.command("set", "web", "limit-broadcast=7")
    came = of_kind(running, "attach")
    assert [(each["port"], each["name"], each["transport"]) for each in came] == [
        (1, "web", "bess"),
        (2, "other", "bess"),
    ]
    (changed,) = of_kind(running, "set")
    assert (changed["port"], changed["settings"]) == (1, {"limit-broadcast": "7/s"})
    assert changed["by"]["uid"] == os.geteuid()
    assert changed["by"]["pid"] != running.process.pid  # type: ignore[union-attr]
    web.close()
    left = wait_event(running, "gone")
    assert (left["port"], left["name"]) == (1, "web")
    assert left["reason"] in left["message"]
    running.command("detach", "other")
    other.wait_closed()
    wait_for(lambda: len(of_kind(running, "gone")) == 2, "the other to go")
    assert of_kind(running, "gone")[1]["reason"] == "detached by the operator"
    logged = [json.loads(line) for line in running.log().splitlines() if line.startswith("{")]
    shown = [{key: value for key, value in event.items() if key != "sequence"} for event in events(running)]
    assert [line for line in logged if line in shown] == logged
    text = running.command("events").stdout
    assert "port 1 (web): attached by" in text
    assert events(running, "--since", "0") == []
    assert events(running, "--since", "1000") == events(running)


def test_spoofing_a_storm_and_a_duplicate_address_are_an_event_each(switch: StartSwitch) -> None:
    running = switch()
    names = {
        "pinned": attach(running, "pinned", "--pin", mac(1).hex(":")),
        "loud": attach(running, "loud", "--limit-broadcast", "1"),
        "one": attach(running, "one"),
        "twin": attach(running, "twin"),
    }
    running.wait_live(4)
    meet({1: names["pinned"], 3: names["one"], 4: names["twin"]})
    turns = itertools.cycle([("one", "twin"), ("twin", "one")])

    def lie() -> None:
        names["pinned"].send(*[build_frame(BROADCAST, mac(9), 70)] * 5)
        names["loud"].send(*[build_frame(BROADCAST, mac(2), 70)] * 5)
        for name in next(turns):  # the last one has the address until the next turn
            names[name].send(build_frame(BROADCAST, mac(3), 70))
        for vm in names.values():
            vm.drain()

    wanted = ("spoof", "storm", "mac-moved", "mac-flapping")

    def all_said() -> bool:
        lie()
        kinds = {event["event"] for event in events(running)}
        return kinds.issuperset(wanted)

    wait_for(all_said, lambda: f"{wanted}; there are {[event['event'] for event in events(running)]}")
    for _ in range(20):
        lie()
    found = {kind: of_kind(running, kind) for kind in wanted}
    assert all(len(found[kind]) == 1 for kind in ("spoof", "storm", "mac-flapping"))
    assert found["spoof"][0]["name"] == "pinned"
    assert found["storm"][0]["name"] == "loud"
    assert found["mac-flapping"][0]["mac"] == mac(3).hex(":")
    assert {found["mac-moved"][0]["port"], found["mac-moved"][0]["former_port"]} == {3, 4}
    assert port(running, "pinned")["drops"]["spoofed"] > 5


def test_events_outlive_kills_and_report_stalls_and_restarts(switch: StartSwitch) -> None:
    running = switch()
    vm, sender = attach(running, "stuck"), attach(running, "sender")
    running.wait_live(2)
    meet({1: vm, 2: sender})
    frames = [build_frame(mac(1), mac(2), 1514)] * A_RING_FULL

    def stalled() -> bool:
        sender.send(*frames)
        return bool(of_kind(running, "stall"))

    wait_for(stalled, "the VM to be stalled")
    vm.drain()

    def moves() -> bool:
        vm.drain()
        return bool(of_kind(running, "stall-end"))

    wait_for(moves, "it to go on")
    os.kill(worker_pids(running)["sender"] or 0, signal.SIGKILL)
    restarted = wait_event(running, "restart")
    assert (restarted["name"], "SIGKILL" in restarted["reason"]) == ("sender", True)
    running.wait_live(2)
    before = events(running)
    kill_supervisor(running)
    running.start()
    after = events(running)
    assert after[: len(before)] == before
    assert [event["event"] for event in after[len(before) :]].count("taken-over") == 2
    assert after[len(before)]["event"] == "takeover"
    numbers = [event["sequence"] for event in after]
    assert numbers == sorted(set(numbers))


def test_follow_shows_events_at_once_and_ends_by_a_signal(switch: StartSwitch) -> None:
    running = switch()
    command = running._command("events", "--follow", "--json", "--since", "1h")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        web = attach(running, "web")
        for line in follower.stdout:
            if json.loads(line)["event"] == "attach":
                break
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE) == 0
        web.close()


def test_a_terminal_gets_lines_that_fit(switch: StartSwitch) -> None:
    running = switch()
    web = attach(running, "web")
    running.wait_live(1)
    running.command("set", "web", "pin=" + ",".join(mac(number).hex(":") for number in range(1, 9)))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("=HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    subprocess.run(running._command("events"), stdout=slave, check=True, timeout=60, env=environment)
    os.close(slave)
    web.close()
    said = b""
    with contextlib.suppress(OSError):  # EIO: all has been read, and no process has the other end
        while more := os.read(master, 1 << 16):
            said += more
    os.close(master)
    shown = said.decode().splitlines()
    assert all(len(line) <= 80 for line in shown)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", shown[0])
    assert [line[:14] for line in shown].count(" " * 14) >= 1  # a long line goes on below
    assert any(re.match(r"\d\d:\d\d:\d\d  ready +bulkhead is ready", line) for line in shown)


def test_wrong_arguments_are_one_line(switch: StartSwitch) -> None:
    running = switch()
    assert running.command("events", "--since", "-1", check=False).returncode == 2


def test_leases_are_events_with_the_name_of_the_port(switch: StartSwitch) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))
    running = switch("--gateway", qemu=True)
    web = Link(running.qemu)
    running.wait_live(2)
    address = web.lease(mac(1))
    given = wait_event(running, "lease")
    wanted = {"state": "given", "mac": mac(1).hex(":"), "address": address, "name": "qemu-2"}
    assert wanted.items() <= given.items()
    costs = running.json("stats")["others"]
    assert [each["name"] for each in costs] == ["the gateway", "the gateway's namespace"]
    assert all(each["pid"] > 0 and each["cpu_seconds"] >= 0 and each["rss_bytes"] > 0 for each in costs)
    assert "the gateway's namespace" in running.command("stats").stdout
    web.lease(mac(1))
    web.lease(mac(1))
    wait_for(lambda: len(of_kind(running, "lease")) == 2, "the first renewal, and only it, to be an event")
    web.sock.close()
    wait_for(lambda: len(of_kind(running, "lease")) == 3, "the end of the lease to be an event")
    assert [event["state"] for event in of_kind(running, "lease")] == ["given", "renewed", "ended"]
    assert of_kind(running, "lease")[2]["reason"] == "left"

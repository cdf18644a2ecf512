"""What was asked for while a switch ran survives `kill -9` of its supervisor and the next start."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.base.saved_state import FILE
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, connect, mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.probes import kill_supervisor, talk, worker_pids

StartSwitch = Callable[..., Switch]
ZONE = {"Name": "upgrade.test.", "Records": [{"Name": "db", "IP": "10.0.0.9"}], "DefaultIP": ""}
GUEST = "192.168.127.2"
PINNED = mac(0x77)


@pytest.fixture(autouse=True)
def _needs() -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY, "curl"))


def state(running: Switch) -> Path:
    return running.directory / "run" / FILE


def api(running: Switch, path: str, body: object = None) -> str:
    """Ask the HTTP API; raises CalledProcessError unless it answers 200."""
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "60"]
    command += ["--unix-socket", str(running.directory / "services.sock")]
    if body is not None:
        command += ["--data", json.dumps(body)]
    return subprocess.run([*command, f"http://x{path}"], capture_output=True, text=True, check=True).stdout


def forwards(running: Switch) -> list[str]:
    return running.command("forward", "list").stdout.split()


def flags(running: Switch) -> list[str]:
    services = f"unix://{running.directory}/services.sock"
    said = ["--gateway", "--services", services, "--forward", f"unix:{running.directory}/ssh.sock:{GUEST}:22"]
    return [*said, *running.arguments(qemu=True)]


def test_the_port_of_the_gateway_before_goes_whatever_its_settings_are(switch: StartSwitch) -> None:
    running = switch("--gateway")
    (before,) = running.json("status")["ports"]
    assert (before["name"], before["transport"]) == ("gateway", "gateway")
    running.command("set", "gateway", "pin=")
    kill_supervisor(running)
    running.start("--gateway")
    wait_for(lambda: [row["state"] for row in running.ports()] == ["live"], "the new gateway's port alone")
    (after,) = running.json("status")["ports"]
    assert (after["name"], after["transport"]) == ("gateway", "gateway")
    assert after["settings"]["pinned"] == before["settings"]["pinned"]


def test_taps_are_found_again_by_their_devices(
    switch: StartSwitch, namespace: Callable[[str], Namespace], tmp_path: Path
) -> None:
    """Their ports have other names than were asked for, since those were taken."""
    room = namespace("room").netns
    table = '[[tap]]\ndevice = "{}"\nname = "web"\n'
    config = tmp_path / "switch.toml"
    config.write_text("".join(table.format(f"bh{number},netns={room}") for number in range(2)))
    running = switch("--config", str(config))
    running.command("attach", "--tap", f"bh2,netns={room}", "--name", "web")
    running.wait_live(3)
    before, devices = worker_pids(running), listeners(running)
    assert set(before) == {"web", "web-2", "web-3"}
    for _ in range(2):  # what was taken over is handed on
        kill_supervisor(running)
        running.start("--config", str(config))
        assert worker_pids(running) == before
        assert listeners(running) == devices


def listeners(running: Switch) -> dict[str, str]:
    """The URL of each listener and device, and its ports."""
    return {each["url"]: json.dumps(each) for each in running.json("status")["listeners"]}


def test_forwards_zones_and_listeners_survive(switch: StartSwitch) -> None:
    running = switch("--gateway", qemu=True)
    running.stop()  # the flags name its directory
    running.start(*flags(running))
    said = forwards(running)
    running.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:80")
    udp = {"local": "127.0.0.1:0", "remote": f"{GUEST}:53", "protocol": "udp"}
    api(running, "/services/forwarder/expose", udp)
    unix = {"local": f"{running.directory}/f.sock", "remote": f"tcp://{GUEST}:5", "protocol": "unix"}
    api(running, "/services/forwarder/expose", unix)
    api(running, "/services/dns/add", ZONE)
    lab = f"unix://{running.directory}/lab.sock"
    pin = ["--name", "lab", "--pin", PINNED.hex(":"), "--limit-broadcast", "9k"]
    running.command("attach", "--listen-qemu", lab, *pin)
    tcp = running.command("attach", "--listen-qemu", "tcp://127.0.0.1:0").stdout.split()[1]
    gone = f"unix://{running.directory}/gone.sock"
    running.command("attach", "--listen-qemu", gone)
    running.command("detach", gone)
    before, zones = forwards(running), api(running, "/services/dns/all")
    assert len(before) == 4
    vm = connect(lab)
    vm.send(build_frame(BROADCAST, PINNED, 60))
    wait_for(lambda: "lab" in names(running), "the pinned VM")
    settings = running.json("show", "lab")

    for _ in range(2):  # what was taken over is handed on
        kill_supervisor(running)
        running.start(*flags(running))
        assert sorted(forwards(running)) == sorted(before), "with the same ports"
        assert api(running, "/services/dns/all") == zones
        urls = [each["url"] for each in running.json("status")["listeners"]]
        assert lab in urls
        assert tcp in urls
        assert gone not in urls
        assert running.json("show", "lab") == settings
    # A VM that was pinned and reconnects goes on, and one that was there was never cut off.
    other = running.connect("unix")
    talk(other, vm)
    again = connect(lab)
    vm.close()
    wait_for(lambda: heard(again, other), "the VM that reconnected")
    # Removed forwards stay removed, and a clean end forgets all.
    for text in set(before) - set(said):
        running.command("forward", "remove", text)
    running.command("detach", lab)
    kill_supervisor(running)
    running.start(*flags(running))
    assert len(forwards(running)) == 1
    assert lab not in [each["url"] for each in running.json("status")["listeners"]]
    running.stop()
    assert not state(running).exists()


def heard(one: FakeVM, other: FakeVM) -> bool:
    frame = build_frame(BROADCAST, PINNED, 70)
    one.send(frame)
    return frame in other.drain()


def names(running: Switch) -> list[str]:
    return [port["name"] for port in running.ports()]


@pytest.mark.parametrize("found", ["not ours", "{", json.dumps({"bulkhead": 1, "parts": {"gateway": 7}})])
def test_a_file_that_is_not_ours_keeps_no_switch_from_starting(switch: StartSwitch, found: str) -> None:
    running = switch("--gateway", qemu=True)
    running.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:80")
    kill_supervisor(running)
    state(running).write_text(found)
    running.start("--gateway", *running.arguments(qemu=True))
    assert forwards(running) == []
    running.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:81")
    assert json.loads(state(running).read_text())["parts"]["gateway"]["forward"] == forwards(running)
    state(running).with_name(f"{FILE}.refused").unlink(missing_ok=True)


def listener(port: int) -> socket.socket | None:
    """Listen at a port of loopback, if no process has it."""
    with contextlib.suppress(OSError):
        return socket.create_server(("127.0.0.1", port))
    return None


def test_a_forward_whose_port_is_taken_is_logged_and_awaited(switch: StartSwitch) -> None:
    running = switch("--gateway", qemu=True)
    running.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:80")
    running.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:81")
    one, other = forwards(running)
    kill_supervisor(running)
    with wait_for(lambda: listener(int(one.split(":")[2])), "the gateway to end"):
        running.start("--gateway", *running.arguments(qemu=True))
        assert forwards(running) == [other]
        assert "is not forwarded again" in running.log()
        kill_supervisor(running)
        running.start("--gateway", *running.arguments(qemu=True))
        assert forwards(running) == [other]
    wait_for(lambda: sorted(forwards(running)) == sorted((one, other)), "the one whose port is free again")


def test_a_command_returns_only_after_its_change_is_stored(switch: StartSwitch) -> None:
    """The supervisor is killed as soon as the answer has come, again and again."""
    running = switch("--gateway", qemu=True)
    for number in range(3):
        added = running.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:{90 + number}").stdout.split()[1]
        kill_supervisor(running)
        assert added in state(running).read_text()
        running.start("--gateway", *running.arguments(qemu=True))
        assert added in forwards(running)


def test_a_port_of_a_switch_that_gets_a_gateway_is_guarded(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    vm = running.connect("unix")
    running.wait_live(1)
    assert running.json("show", "qemu-1")["settings"]["guard"] is False
    kill_supervisor(running)
    running.start("--gateway", *running.arguments(qemu=True))
    assert running.json("show", "qemu-1")["settings"]["guard"] is True
    # From then on the operator decides.
    running.command("set", "qemu-1", "guard=false")
    kill_supervisor(running)
    running.start("--gateway", *running.arguments(qemu=True))
    assert running.json("show", "qemu-1")["settings"]["guard"] is False
    vm.close()

"""What an operator sees and does while a switch runs, on real processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import wait_for

StartSwitch = Callable[..., Switch]


@pytest.mark.parametrize(("flag", "scheme"), [("--listen-qemu", "unix"), ("--listen", "connect")])
def test_attach_and_detach(switch: StartSwitch, flag: str, scheme: str) -> None:
    running = switch()
    url = f"unix://{running.qemu}"
    done = running.command("attach", flag, url, "--name", "web")
    assert done.stdout == f"attached {url}\n"
    vms = [connect(f"{scheme}://{running.qemu}") for _ in range(2)]
    running.wait_live(2)
    assert [port["name"] for port in running.ports()] == ["web", "web-2"]
    again = running.command("attach", flag, url, check=False)
    assert (again.returncode, again.stderr) == (1, f"Error: {url} is attached already\n")
    running.command("detach", "web-2")
    vms[1].wait_closed()
    running.command("detach", "1")
    vms[0].wait_closed()
    running.wait_live(0)
    assert running.command("detach", url).stdout == f"detached {url}\n"
    assert not running.qemu.exists()
    missing = running.command("detach", "web", check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith("Error: there is no port 'web'")


def test_a_listener_that_pins_addresses_takes_one_vm_at_a_time(switch: StartSwitch) -> None:
    running = switch(bess=True)
    url = f"unix://{running.qemu}"
    pin = "02:00:00:00:00:01"
    running.command("attach", "--listen-qemu", url, "--pin", pin, "--no-flood-unknown")
    other = running.connect("unixpacket")
    first, second = connect(url), connect(url)
    running.wait_live(2)
    assert [row["mac"] for row in running.json("macs")["macs"] if row["pinned"]] == [pin]
    first.send(build_frame(BROADCAST, mac(1), 60))
    wait_for(
        lambda: [port for port in running.ports() if port["drops"]["spoofed"]], "the frame to be dropped"
    )
    first.close()
    frame = build_frame(BROADCAST, bytes.fromhex(pin.replace(":", "")), 60)
    second.send(frame)
    other.receive_matching(lambda each: each == frame)
    clash = running.command(
        "attach", "--listen-bess", f"unixpacket://{running.qemu}2", "--pin", pin, check=False
    )
    assert clash.returncode == 1
    assert clash.stderr.startswith(f"Error: {pin} is already pinned to ")
    assert clash.stderr.endswith("; unpin it there first: supervisor set qemu-3 pin=\n")


def test_detaching_a_datagram_vm_disconnects_it_and_the_next_gets_in(switch: StartSwitch) -> None:
    running = switch(vfkit=1)
    vm = running.connect("unixgram", "one")
    vm.send(build_frame(BROADCAST, mac(1), 60))
    (port,) = running.wait_live(1)
    running.command("detach", str(port["port"]))
    running.wait_live(0)

    def refused() -> bool:
        try:
            vm.sock.send(b"x" * 60)
        except ConnectionRefusedError:
            return True
        return False

    wait_for(refused, "the old VM to be cut off")
    new = running.connect("unixgram", "two")
    new.send(build_frame(BROADCAST, mac(2), 60))
    running.wait_live(1)
    vm.close()
    new.close()


def test_a_dead_datagram_vm_is_noticed_without_a_write_to_it(switch: StartSwitch) -> None:
    running = switch(vfkit=1)
    vm = running.connect("unixgram", "one")
    vm.send(build_frame(BROADCAST, mac(1), 60))
    running.wait_live(1)
    vm.close()
    running.wait_live(0)


def test_the_stats_have_the_promised_shape(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    vm = running.connect("unix")
    (port,) = running.wait_live(1)
    answer: dict[str, Any] = running.json("stats", "--by-source")
    assert {"epoch", "sequence", "uptime_s", "supervisor", "ports"} <= answer.keys()
    assert {"port", "name", "transport", "state", "stalled", "since_s", "worker", "rx", "tx", "flooded"} <= (
        port.keys()
    )
    assert port["worker"]["pid"] in running.processes()
    assert answer["ports"][0]["by_source"] == []
    vm.close()


def test_a_missing_answer_is_one_clear_line(switch: StartSwitch) -> None:
    running = switch()
    absent = running.directory / "absent"
    done = subprocess.run(
        [*running._command("status")[:4], "--runtime-dir", str(absent)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"Error: no supervisor runs in {absent}; start one, or give its --runtime-dir"
    )
    assert done.stderr.count("\n") == 1
    assert str(running.runtime_dir) in done.stderr, "it says where one does run"
    assert json.loads(running.command("status", "--json").stdout)["ports"] == []

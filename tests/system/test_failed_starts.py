"""A start that fails after `kill -9` leaves all to the next one: VMs, and what was asked for at run time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.switch import Switch
from tests.helpers.probes import kill_supervisor, talk, worker_pids

StartSwitch = Callable[..., Switch]
LEFT = {"switch.state", "events.ring", "history.ring", "supervisor.lock"}
FORWARD = "tcp:127.0.0.1:0:192.168.127.2:80"


def files(running: Switch) -> set[str]:
    return {each.name for each in running.runtime_dir.iterdir()}


def listeners(running: Switch) -> list[str]:
    return [each["url"] for each in running.json("status")["listeners"]]


def fails(running: Switch, *arguments: str) -> str:
    """Let a start fail; return its error line."""
    failed = running.command("run", *arguments, check=False)
    assert (failed.returncode, failed.stdout) == (1, ""), failed
    return failed.stderr


@pytest.mark.parametrize("why", ["its pid file", "a listener"])
def test_attachments_and_events_outlive_a_failed_start(switch: StartSwitch, why: str) -> None:
    """No worker has a port, so nothing but the lock says that there was a switch."""
    running = switch()
    lab = f"unix://{running.directory}/lab.sock"
    running.command("attach", "--listen-qemu", lab)
    kill_supervisor(running)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = {
            "its pid file": ("--pid-file", str(running.directory)),
            "a listener": ("--listen-qemu", f"tcp://127.0.0.1:{taken.getsockname()[1]}"),
        }
        fails(running, *wrong[why])
    assert files(running) >= LEFT
    running.start()
    assert lab in listeners(running)
    assert running.command("events").stdout.count("is ready") == 2, "the first supervisor's, too"


@pytest.mark.parametrize("why", ["the gateway", "a listener, when the gateway serves"])
def test_forwards_and_leases_outlive_a_failed_start(switch: StartSwitch, why: str) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))
    running = switch("--gateway")
    running.command("forward", "add", FORWARD)
    before = running.command("forward", "list").stdout
    leases = running.runtime_dir / "gateway.leases"
    leases.touch()
    kill_supervisor(running)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        if why == "the gateway":
            fails(running, "--gateway", "--forward", f"tcp:{address}:192.168.127.2:22")
        else:
            fails(running, "--gateway", "--listen-qemu", f"tcp://{address}")
    assert files(running) >= {*LEFT, leases.name}
    running.start("--gateway")
    assert running.command("forward", "list").stdout == before


@pytest.mark.parametrize("name", ["console.sock", "capture.sock"])
def test_vms_outlive_a_start_that_cannot_open_its_own_files(switch: StartSwitch, name: str) -> None:
    running = switch(qemu=True)
    one, other = running.connect("unix"), running.connect("unix")
    running.wait_live(2)
    before = worker_pids(running)
    kill_supervisor(running)
    in_the_way = running.runtime_dir / name
    block(in_the_way)
    fails(running, *running.arguments(qemu=True))
    unblock(in_the_way)
    running.start(*running.arguments(qemu=True))
    running.wait_live(2)
    assert worker_pids(running) == before
    talk(one, other)


def block(path: Path) -> None:
    """Put something at ``path`` that a start neither uses nor removes."""
    path.unlink(missing_ok=True)
    path.mkdir()


def unblock(path: Path) -> None:
    path.rmdir()

"""Files deleted or emptied under a running switch are made again, and nothing in their place is touched."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.ports import gets_through
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.probes import kill_supervisor

StartSwitch = Callable[..., Switch]


def test_deleted_sockets_are_made_again(switch: StartSwitch) -> None:
    running = switch(qemu=True, bess=True, vfkit=1)
    first = running.connect("unix")
    running.wait_live(1)
    sockets = [running.qemu, running.bess, running.vfkit(), running.runtime_dir / "console.sock"]
    for path in sockets:
        path.unlink()
    wait_for(lambda: all(path.is_socket() for path in sockets), running.log)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in sockets)
    later = [running.connect(kind, kind) for kind in ("unix", "unixpacket", "unixgram")]
    later[2].send(build_frame(BROADCAST, mac(3)))
    running.wait_live(4)
    for vm in later:
        wait_for(lambda vm=vm: gets_through(first, vm, build_frame(BROADCAST, mac(1))), "a broadcast")  # type: ignore[misc]
    assert running.log().count("was deleted and is made again") == 4


def test_a_file_in_the_place_of_a_socket_is_left_alone(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    running.qemu.unlink()
    running.qemu.write_text("precious")
    before = running.json("status")["uptime_s"]
    wait_for(lambda: running.json("status")["uptime_s"] > before + 2.5, "a few looks at it")
    assert running.qemu.read_text() == "precious"
    running.qemu.unlink()
    wait_for(running.qemu.is_socket, "the socket")


@pytest.mark.parametrize("name", ["console.sock", "capture.sock", "qemu.sock"])
def test_another_process_in_the_place_of_a_socket_is_said_and_its_dead_socket_replaced(
    switch: StartSwitch, name: str
) -> None:
    running = switch(qemu=True)
    first = running.connect("unix")
    running.wait_live(1)
    path = running.qemu if name == "qemu.sock" else running.runtime_dir / name
    path.unlink()
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(str(path))
        other.listen()
        taken = path.stat().st_ino
        wait_for(lambda: f"another process has taken {path}" in running.log(), running.log)
        assert path.stat().st_ino == taken
    wait_for(lambda: f"{path} was deleted and is made again" in running.log(), running.log)
    running.command("status")
    second = running.connect("unix")
    running.wait_live(2)
    assert running.log().count("another process has taken") == 1
    first.close()
    second.close()


def test_files_that_are_emptied_cost_what_is_in_them(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    vm = running.connect("unix")
    running.wait_live(1)
    for name in ("events.ring", "history.ring", "supervisor.lock"):
        os.truncate(running.runtime_dir / name, 0)
    vm.send(build_frame(BROADCAST, mac(1)))
    running.command("set", "qemu-1", "limit-broadcast=7")
    assert "limit-broadcast=7/s" in running.command("events").stdout
    running.command("stats", "--since", "1m")
    lock = running.runtime_dir / "supervisor.lock"
    wait_for(lambda: "supervisor.lock was emptied" in running.log(), running.log)
    assert int(lock.read_text().split()[0]) == running.process.pid  # type: ignore[union-attr]
    kill_supervisor(running)
    running.start(*running.arguments(qemu=True))
    assert [port["name"] for port in running.wait_live(1)] == ["qemu-1"]
    assert "limit-broadcast=7/s" in running.command("events").stdout


def test_a_deleted_runtime_directory_is_made_again_and_what_cannot_be_is_said(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    first = running.connect("unix")
    running.wait_live(1)
    shutil.rmtree(running.runtime_dir)
    sockets = [running.runtime_dir / name for name in ("console.sock", "capture.sock")]
    wait_for(lambda: all(path.is_socket() for path in sockets), running.log)
    assert (running.runtime_dir / "supervisor.lock").read_text().split()[0].isdecimal()
    assert running.runtime_dir.stat().st_mode & 0o777 == 0o700
    wait_for(lambda: "the sockets of 1 workers" in running.log(), "what is said of workers")
    assert "Traceback" not in running.log()
    second, third = running.connect("unix"), running.connect("unix")
    running.wait_live(3)
    for vm in (second, third):
        wait_for(lambda vm=vm: gets_through(first, vm, build_frame(BROADCAST, mac(1))), "a broadcast")  # type: ignore[misc]


def test_a_capture_works_when_its_socket_was_deleted(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    vm = running.connect("unix")
    running.wait_live(1)
    path = running.runtime_dir / "capture.sock"
    path.unlink()
    wait_for(path.is_socket, running.log)
    done = running.command("capture", "all", "--seconds", "1", "--write", str(running.directory / "x.pcapng"))
    assert done.returncode == 0, done.stderr
    vm.close()

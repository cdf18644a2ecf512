"""What goes on when a worker or the supervisor is killed, on real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.probes import kill_supervisor, talk, worker_pids

StartSwitch = Callable[..., Switch]


@pytest.mark.parametrize("kind", ["unixpacket", "unixgram"])
def test_a_killed_worker_is_replaced_and_the_link_goes_on(switch: StartSwitch, kind: str) -> None:
    running = switch(qemu=True, bess=True, vfkit=1)
    one, other = running.connect("unix"), running.connect(kind, "dgram")
    other.send(build_frame(BROADCAST, mac(9), 60))
    running.wait_live(2)
    talk(one, other)
    name = next(port["name"] for port in running.ports() if port["transport"] != "qemu")
    before = worker_pids(running)[name]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: worker_pids(running)[name] not in (None, before), "another worker")
    running.wait_live(2)
    talk(one, other, 3)
    talk(other, one, 4)
    assert next(port for port in running.ports() if port["name"] == name)["worker"]["restarts"] == 1


def test_a_stream_is_closed_whose_worker_was_killed_within_a_frame(switch: StartSwitch) -> None:
    """The next worker would take the rest of the frame for lengths; the others notice nothing."""
    running = switch(qemu=True, bess=True)
    one, two, other = running.connect("unix"), running.connect("unix"), running.connect("unixpacket")
    running.wait_live(3)
    one.sock.sendall(b"\0\0\0\x40half")
    wait_for(lambda: unread(one.sock) == 0, "the half to be read")
    os.kill(worker_pids(running)["qemu-1"], signal.SIGKILL)
    one.wait_closed()
    running.wait_live(2)
    talk(two, other)
    back = running.connect("unix")
    running.wait_live(3)
    talk(back, other, 2)


def unread(sock: socket.socket) -> int:
    """Bytes that the other end has not read yet."""
    count: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return count


def test_the_next_supervisor_takes_every_vm_over(switch: StartSwitch) -> None:
    running = switch(qemu=True, bess=True, vfkit=1, network=True)
    vms = [running.connect(kind, kind) for kind in ("unix", "unixpacket", "unixgram", "connect")]
    vms[2].send(build_frame(BROADCAST, mac(1), 60))
    before = running.wait_live(4)
    talk(vms[0], vms[2])
    kill_supervisor(running)
    talk(vms[0], vms[1], 2)  # the switch is its workers
    running.start(*running.arguments(qemu=True, bess=True, vfkit=1, network=True))
    after = running.wait_live(4)
    for key in ("port", "name", "transport"):
        assert [port[key] for port in after] == [port[key] for port in before]
    assert [port["worker"]["pid"] for port in after] == [port["worker"]["pid"] for port in before]
    talk(vms[1], vms[2], 3)
    talk(vms[2], vms[0], 4)
    talk(vms[3], vms[0], 8)
    # What the new supervisor makes itself works with what it took over.
    new = running.connect("connect")
    running.wait_live(5)
    talk(new, vms[1], 5)
    talk(vms[2], new, 6)
    # A VM that was taken over can go and come back.
    vms[2].close()
    running.wait_live(4)
    again = running.connect("unixgram", "unixgram")
    again.send(build_frame(BROADCAST, mac(7), 60))
    running.wait_live(5)
    talk(again, new, 7)


def test_a_worker_of_the_predecessor_that_does_not_answer_is_ended(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    vm = running.connect("unix")
    running.wait_live(1)
    pid = worker_pids(running)["qemu-1"]
    kill_supervisor(running)
    os.kill(pid, signal.SIGSTOP)
    running.start(*running.arguments(qemu=True))
    vm.wait_closed()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the worker to be gone")
    assert running.ports() == []


def test_a_supervisor_that_cannot_start_leaves_the_vms_to_the_next(switch: StartSwitch) -> None:
    running = switch(qemu=True, vfkit=1)
    one, other = running.connect("unix"), running.connect("unixgram")
    other.send(build_frame(BROADCAST, mac(1), 60))
    running.wait_live(2)
    kill_supervisor(running)
    listeners = running.arguments(qemu=True, vfkit=1)
    failed = running.command("run", *listeners, "--listen-bess", "unixpacket:///no/where", check=False)
    assert failed.returncode == 1
    assert "/no/where" in failed.stderr
    talk(one, other, 2)
    running.start(*listeners)
    running.wait_live(2)
    talk(other, one, 3)


def test_a_second_supervisor_is_refused_and_the_first_goes_on(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    assert running.process is not None
    refused = running.command("run", check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert f"pid {running.process.pid}" in refused.stderr
    vm = running.connect("unix")
    running.wait_live(1)
    vm.close()

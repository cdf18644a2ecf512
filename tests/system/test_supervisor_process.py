"""The supervisor as a process: what a user starts, starves, floods with connections and sends garbage to.

Every switch here is looked at afterwards for processes, sockets and files that it left (``fixtures``).
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from supervisor.attach.listener_common import PER_PORT
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.fixtures import running_switch, short_directory
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.probes import closed, cpu_seconds, quiet, talk

StartSwitch = Callable[..., Switch]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_with_status_0(number: signal.Signals) -> None:
    with running_switch() as switch:
        switch.start(*switch.arguments(qemu=True, bess=True, vfkit=1, tcp=True, network=True))
        vms = [switch.connect(kind, kind) for kind in ("unix", "tcp", "unixpacket", "unixgram", "connect")]
        vms[3].send(build_frame(BROADCAST, mac(1), 60))
        switch.wait_live(5)
        assert switch.process is not None
        switch.process.send_signal(number)
        assert switch.process.wait(PATIENCE) == 0
        switch.assert_nothing_left()
        vms[0].wait_closed()


def test_started_by_nohup_it_outlives_its_terminal() -> None:
    with short_directory() as directory:
        switch = Switch(directory, wrap=lambda command: ["nohup", *command])
        try:
            switch.start(*switch.arguments(qemu=True))
            assert switch.process is not None
            switch.process.send_signal(signal.SIGHUP)
            vm = switch.connect("unix")
            switch.wait_live(1)
            vm.close()
            switch.stop()
        finally:
            switch.kill()


def test_ctrl_c_in_the_terminal_reaches_the_supervisor_only(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    vm = running.connect("unix")
    running.wait_live(1)
    assert running.process is not None
    sessions = {os.getsid(pid) for pid in running.processes() if pid != running.process.pid}
    assert os.getsid(running.process.pid) not in sessions
    vm.close()


def test_workers_can_be_told_apart_in_ps(switch: StartSwitch) -> None:
    running = switch()
    tail = ["-m", "workers", str(running.runtime_dir)]

    def names() -> list[str]:
        processes = [Path(f"/proc/{pid}") for pid in running.processes()]
        found = [each for each in processes if (each / "cmdline").read_text().split("\0")[-4:-1] == tail]
        return sorted((each / "comm").read_text().strip() for each in found)

    def seen() -> bool:
        first, second, third = (*names(), "", "", "")[:3]
        return first == second != "" and third == "worker-template"

    wait_for(seen, lambda: f"two warm workers and their template, there are {names()}")
    assert len(names()) == 3


def test_ready_line_pid_file_and_systemd(tmp_path: Path) -> None:
    with running_switch() as switch:
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = switch.vm_dir / "notify"
        notify.bind(str(address))
        notify.settimeout(PATIENCE)
        pid_file = switch.directory / "pid"
        os.environ["NOTIFY_SOCKET"] = str(address)
        try:
            switch.start(*switch.arguments(qemu=True, tcp=True), "--pid-file", str(pid_file), "--name", "lab")
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert switch.process is not None
        assert re.fullmatch(
            rf"ready lab in {switch.runtime_dir}: unix://{switch.qemu} tcp://127\.0\.0\.1:[1-9]\d*\n",
            switch.ready_line,
        )
        assert notify.recv(100) == b"READY=1"
        assert int(pid_file.read_text()) == switch.process.pid
        assert switch.json("status")["name"] == "lab"
        switch.stop()
        assert notify.recv(100) == b"STOPPING=1"
        assert not pid_file.exists()
        notify.close()


def test_a_hundred_clients_that_connect_and_leave_disturb_no_vm(switch: StartSwitch) -> None:
    running = switch(qemu=True, bess=True)
    one, other = running.connect("unix"), running.connect("unixpacket")
    running.wait_live(2)
    talk(one, other)
    passing = [running.connect("unix") for _ in range(100)]
    for vm in passing:
        vm.close()
    talk(other, one, 2)
    running.wait_live(2, timeout=60)
    assert "Traceback" not in running.log()


def test_a_vm_that_says_nothing_and_one_that_leaves_after_half_a_frame(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    silent, half, other = (running.connect("unix") for _ in range(3))
    running.wait_live(3)
    half.sock.sendall(b"\0\0\0\x40half")
    half.close()
    running.wait_live(2)
    talk(other, silent)


def garbage() -> Iterator[bytes]:
    yield b""
    yield b"garbage"
    yield b"\x93\x01\xa5Hello\xc0"
    yield b"\x92\x01\xa7Command"
    yield b"\xdd\xff\xff\xff\xff"
    yield b"x" * (1 << 20)


@pytest.mark.parametrize("name", ["console.sock"])
def test_garbage_on_the_zeromq_sockets_is_ignored_and_logged_once_a_second(
    switch: StartSwitch, name: str
) -> None:
    running = switch(qemu=True)
    started = time.monotonic()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for _ in range(20):
        for data in garbage():
            with context.socket(zmq.DEALER) as sock:
                sock.connect(f"ipc://{running.runtime_dir}/{name}")
                sock.send_multipart([data] * 3)
                sock.send(data)
                sock.close(linger=1000)
    context.term()
    vm = running.connect("unix")
    running.wait_live(1)
    said = running.log().count("bad message")
    assert 1 <= said <= time.monotonic() - started + 1
    assert "Traceback" not in running.log()
    vm.close()


def test_many_vms_wait_for_no_room_for_descriptors(switch: StartSwitch) -> None:
    running = switch()
    assert running.process is not None
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    size = next(line.split()[1] for line in status.splitlines() if line.startswith("FDSize:"))
    assert int(size) >= 250 * PER_PORT


def test_where_descriptors_run_out_vms_are_refused_and_the_others_go_on() -> None:
    with running_switch() as switch:
        switch.start(*switch.arguments(qemu=True, bess=True))
        assert switch.process is not None
        resource.prlimit(switch.process.pid, resource.RLIMIT_NOFILE, (176, 176))
        one, other = switch.connect("unix"), switch.connect("unixpacket")
        switch.wait_live(2)
        crowd = [switch.connect("unix") for _ in range(60)]
        wait_for(lambda: any(closed(vm) for vm in crowd), "VMs to be refused")
        talk(one, other)
        wait_for(lambda: "descriptor limit reached" in switch.log(), "a line in the log")
        log = switch.log()
        assert log.count("descriptor limit") <= 10
        assert "Traceback" not in log
        wait_for(lambda: quiet(switch), "the loop to sleep again, with nothing free")
        for vm in crowd:
            vm.close()
        switch.wait_live(2, timeout=60)
        late = switch.connect("unix")
        switch.wait_live(3)
        talk(late, other, 2)


def test_an_idle_switch_sleeps(switch: StartSwitch) -> None:
    running = switch(qemu=True, vfkit=1)
    wait_for(lambda: len(running.processes()) == 4, "two warm workers")
    wait_for(lambda: quiet(running), "them to have started")

    def sleeps() -> bool:
        """For a second; on a busy machine the last of the start may come late."""
        before = cpu_seconds(running)
        time.sleep(1.0)
        return cpu_seconds(running) - before < 0.05

    wait_for(sleeps, "a second in which hardly any CPU time is used")

"""The supervisor as a process: what a user starts, kills, starves and sends garbage to.

Every switch here is looked at afterwards for processes, sockets and files that it left (``fixtures``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.guests.fake_vm import BROADCAST, FakeVM, LinkClosed, build_frame, connect, mac
from tests.guests.fixtures import running_switch
from tests.guests.switch import ROOT, Switch
from tests.guests.waiting import PATIENCE, wait_for

StartSwitch = Callable[..., Switch]


def talk(one: FakeVM, other: FakeVM, number: int = 1) -> None:
    """Broadcast from one VM until the other has heard it."""
    frame = build_frame(BROADCAST, mac(number), 60)

    def heard() -> bool:
        one.send(frame)
        return frame in other.drain()

    wait_for(heard, f"a broadcast of {mac(number).hex(':')} to arrive")


def closed(vm: FakeVM) -> bool:
    """Whether the switch has closed the link by now."""
    try:
        vm.drain()
    except LinkClosed:
        return True
    return False


def cpu_seconds(switch: Switch) -> float:
    """CPU time that the switch and its workers have used so far."""
    total = 0
    for pid in switch.processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def quiet(switch: Switch) -> bool:
    """Whether the switch uses no CPU time for a moment."""
    before = cpu_seconds(switch)
    time.sleep(0.1)
    return cpu_seconds(switch) == before


def worker_pids(switch: Switch) -> dict[str, int]:
    return {port["name"]: port["worker"]["pid"] for port in switch.json("status")["ports"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_with_status_0(number: signal.Signals) -> None:
    with running_switch() as switch:
        switch.start(*switch.arguments(qemu=True, bess=True, vfkit=1, tcp=True))
        vms = [switch.connect(kind, kind) for kind in ("unix", "tcp", "unixpacket", "unixgram")]
        vms[3].send(build_frame(BROADCAST, mac(1), 60))
        switch.wait_live(4)
        assert switch.process is not None
        switch.process.send_signal(number)
        assert switch.process.wait(PATIENCE) == 0
        switch.assert_nothing_left()
        vms[0].wait_closed()


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
    assert running.process is not None

    def spares() -> list[list[str]]:
        workers = [pid for pid in running.processes() if pid != running.process.pid]  # type: ignore[union-attr]
        lines = [Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1] for pid in workers]
        return lines if len(lines) == 2 else []

    for words in wait_for(spares, "two warm workers"):
        assert words[-3:] == ["-m", "workers", str(running.runtime_dir)]


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


def test_a_hundred_that_connect_and_leave_at_once_disturb_nobody(switch: StartSwitch) -> None:
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


def test_a_killed_worker_of_a_stream_closes_that_link_and_no_other(switch: StartSwitch) -> None:
    running = switch(qemu=True, bess=True)
    one, two, other = running.connect("unix"), running.connect("unix"), running.connect("unixpacket")
    running.wait_live(3)
    os.kill(worker_pids(running)["qemu-1"], signal.SIGKILL)
    one.wait_closed()
    running.wait_live(2)
    talk(two, other)
    back = running.connect("unix")
    running.wait_live(3)
    talk(back, other, 2)


def kill_supervisor(switch: Switch) -> None:
    assert switch.process is not None
    switch.process.kill()
    switch.process.wait()


def test_the_next_supervisor_takes_every_vm_over(switch: StartSwitch) -> None:
    running = switch(qemu=True, bess=True, vfkit=1)
    vms = [running.connect(kind, kind) for kind in ("unix", "unixpacket", "unixgram")]
    vms[2].send(build_frame(BROADCAST, mac(1), 60))
    before = running.wait_live(3)
    talk(vms[0], vms[2])
    kill_supervisor(running)
    talk(vms[0], vms[1], 2)  # the switch is its workers
    running.start(*running.arguments(qemu=True, bess=True, vfkit=1))
    after = running.wait_live(3)
    for key in ("port", "name", "transport"):
        assert [port[key] for port in after] == [port[key] for port in before]
    assert [port["worker"]["pid"] for port in after] == [port["worker"]["pid"] for port in before]
    talk(vms[1], vms[2], 3)
    talk(vms[2], vms[0], 4)
    # What the new supervisor makes itself works with what it took over.
    new = running.connect("unix")
    running.wait_live(4)
    talk(new, vms[1], 5)
    talk(vms[2], new, 6)
    # A VM that was taken over can go and come back.
    vms[2].close()
    running.wait_live(3)
    again = running.connect("unixgram", "unixgram")
    again.send(build_frame(BROADCAST, mac(7), 60))
    running.wait_live(4)
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


def garbage() -> Iterator[bytes]:
    yield b""
    yield b"garbage"
    yield b"\x93\x01\xa5Hello\xc0"
    yield b"\x92\x01\xa7Command"
    yield b"\xdd\xff\xff\xff\xff"
    yield b"x" * (1 << 20)


@pytest.mark.parametrize("name", ["control.sock", "console.sock"])
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


def test_garbage_on_the_descriptor_socket_is_ignored(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    for data in garbage():
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(running.runtime_dir / "descriptors.sock"))
            with contextlib.suppress(OSError):
                sock.sendmsg([data[:4000]])
                socket.send_fds(sock, [b"garbage"], [0, 1, 2])
    vm = running.connect("unix")
    running.wait_live(1)
    assert "Traceback" not in running.log()
    vm.close()


def test_where_descriptors_run_out_vms_are_refused_and_the_others_go_on() -> None:
    with running_switch() as switch:
        switch.start(*switch.arguments(qemu=True, bess=True))
        assert switch.process is not None
        resource.prlimit(switch.process.pid, resource.RLIMIT_NOFILE, (128, 128))
        one, other = switch.connect("unix"), switch.connect("unixpacket")
        switch.wait_live(2)
        crowd = [switch.connect("unix") for _ in range(60)]
        wait_for(lambda: any(closed(vm) for vm in crowd), "VMs to be refused")
        talk(one, other)
        log = switch.log()
        assert "descriptor limit reached" in log
        assert log.count("descriptor limit") <= 10
        assert "Traceback" not in log
        cpu = cpu_seconds(switch)
        time.sleep(0.5)
        assert cpu_seconds(switch) - cpu < 0.3, "the loop spins"
        for vm in crowd:
            vm.close()
        switch.wait_live(2, timeout=60)
        late = switch.connect("unix")
        switch.wait_live(3)
        talk(late, other, 2)


def test_an_idle_switch_sleeps(switch: StartSwitch) -> None:
    running = switch(qemu=True, vfkit=1)
    wait_for(lambda: len(running.processes()) == 3, "two warm workers")
    wait_for(lambda: quiet(running), "them to have started")
    before = cpu_seconds(running)
    time.sleep(1.0)
    assert cpu_seconds(running) - before < 0.05


def test_attach_and_detach(switch: StartSwitch) -> None:
    running = switch()
    url = f"unix://{running.qemu}"
    done = running.command("attach", "--listen-qemu", url, "--name", "web")
    assert done.stdout == f"attached {url}\n"
    vms = [connect(url) for _ in range(2)]
    running.wait_live(2)
    assert [port["name"] for port in running.ports()] == ["web", "web-2"]
    again = running.command("attach", "--listen-qemu", url, check=False)
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
    assert (clash.returncode, clash.stderr) == (
        1,
        f"Error: {pin} is pinned to {url} already; pin it to one of them\n",
    )


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


def test_a_datagram_vm_that_dies_is_noticed_though_nobody_writes_to_it(switch: StartSwitch) -> None:
    running = switch(vfkit=1)
    vm = running.connect("unixgram", "one")
    vm.send(build_frame(BROADCAST, mac(1), 60))
    running.wait_live(1)
    vm.close()
    running.wait_live(0, timeout=3.0)


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


def test_no_answer_is_one_clear_line(switch: StartSwitch) -> None:
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
    assert done.stderr == f"Error: no supervisor runs in {absent}; start one, or give its --runtime-dir\n"
    assert json.loads(running.command("status", "--json").stdout)["ports"] == []

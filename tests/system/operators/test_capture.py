"""``supervisor capture`` on a real switch: what tshark reads is what the counters count."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.capture.server import MOST
from tests.helpers.claims import arp
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, connect, mac
from tests.helpers.guests.fixtures import StartSwitch, short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.guests.watching import ask, port_of

COMMAND = (sys.executable, "-m", "bulkhead", "capture", "--runtime-dir")
FIELDS = ("frame.interface_name", "frame.packet_flags", "frame.comment", "eth.src", "frame.len")


class Capturing:
    """One ``supervisor capture``, to a file."""

    def __init__(self, switch: Switch, file: Path, *words: str) -> None:
        self.switch, self.file = switch, file
        command = [*COMMAND, str(switch.runtime_dir), "-w", str(file), *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def begun(self, ports: int) -> None:
        """Wait until the file has so many interfaces."""
        wait_for(lambda: self.interfaces() >= ports, f"{ports} interfaces", PATIENCE)

    def interfaces(self) -> int:
        """Return how many descriptions of ports the file has."""
        data = self.file.read_bytes() if self.file.exists() else b""
        return len(re.findall(rb"\x01\0\0\0[^\0].\0\0\x01\0\0\0\xff\xff\0\0", data, re.S))

    def end(self) -> str:
        """End it as Ctrl-C does; return its summary."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, said
        return said

    def read(self) -> list[dict[str, str]]:
        """Read the file with tshark."""
        fields = [word for name in FIELDS for word in ("-e", name)]
        done = subprocess.run(
            ["tshark", "-r", self.file, "-T", "fields", "-E", "separator=|", *fields],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [dict(zip(FIELDS, line.split("|"), strict=True)) for line in done.stdout.splitlines()]


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Callable[..., Capturing]]:
    requirements.require(("tshark", "libpcap"))
    number = itertools.count()
    with contextlib.ExitStack() as stack:

        def start(switch: Switch, *words: str) -> Capturing:
            made = Capturing(switch, tmp_path / f"capture-{next(number)}.pcapng", *words)
            stack.callback(made.process.wait)
            stack.callback(made.process.kill)
            return made

        yield start


def stats(switch: Switch) -> dict[str, dict[str, Any]]:
    return {port["name"]: port for port in ask(switch, "stats")["ports"]}


def expect(vm: FakeVM, frame: bytes) -> None:
    vm.receive_matching(frame.__eq__)


def pair(switch: Switch, stack: contextlib.ExitStack) -> tuple[FakeVM, FakeVM]:
    """Attach two VMs that know each other."""
    one, two = (stack.enter_context(contextlib.closing(connect(f"unix://{switch.qemu}"))) for _ in range(2))
    switch.wait_live(2)
    for number, vm, other in ((1, one, two), (2, two, one)):
        hello = build_frame(BROADCAST, mac(number), 60)
        vm.send(hello)
        expect(other, hello)
    return one, two


def test_sums_equal_the_counters(switch: StartSwitch, capture: Callable[..., Capturing]) -> None:
    running = switch(qemu=True)
    with contextlib.ExitStack() as stack:
        one, two = pair(running, stack)
        running.command("set", "qemu-1", f"pin={mac(1).hex(':')}", "limit-broadcast=1")
        before = stats(running)
        made = capture(running, "all")
        made.begun(2)
        for number in range(100):
            frame = build_frame(mac(2), mac(1), 60 + number)
            one.send(frame)
            expect(two, frame)
        for _ in range(3):
            one.send(build_frame(BROADCAST, mac(9), 60))  # spoofed
        last = build_frame(mac(2), mac(1), 1514)
        one.send(last)
        expect(two, last)
        after = wait_for(lambda: _grown(running, before, 104), "all counters", PATIENCE)
        assert "more came faster" not in made.end()
        read = made.read()
    ways = Counter(
        (row["frame.interface_name"], row["frame.comment"], row["frame.packet_flags"][-1]) for row in read
    )
    for name in ("qemu-1", "qemu-2"):
        assert ways[name, "", "1"] == after[name]["rx"]["frames"] - before[name]["rx"]["frames"]
        assert ways[name, "", "2"] == after[name]["tx"]["frames"] - before[name]["tx"]["frames"]
    received = re.findall(rb"\x05\0\0\0.{4}(.{4}).{8}\x04\0\x08\0(.{8})", made.file.read_bytes(), re.S)
    names = {number.to_bytes(4, "little"): f"qemu-{number + 1}" for number in (0, 1)}
    frames = Counter(row["frame.interface_name"] for row in read)
    assert {names[port]: int.from_bytes(count, "little") for port, count in received} == frames
    assert ways["qemu-1", "dropped: spoofed", "1"] == 3 == after["qemu-1"]["drops"]["spoofed"]


def _grown(switch: Switch, before: dict[str, Any], frames: int) -> dict[str, Any] | None:
    now = stats(switch)
    return now if now["qemu-1"]["rx"]["frames"] >= before["qemu-1"]["rx"]["frames"] + frames else None


def test_a_filter_and_a_port_that_comes_later(switch: StartSwitch, capture: Callable[..., Capturing]) -> None:
    running = switch(qemu=True)
    made = capture(running, "all", "--filter", f"ether src {mac(2).hex(':')}")
    with contextlib.ExitStack() as stack:
        one, two = pair(running, stack)
        made.begun(2)
        for vm, source, other in ((one, 1, 2), (two, 2, 1)):
            vm.send(build_frame(mac(other), mac(source), 333))
        expect(one, build_frame(mac(1), mac(2), 333))
        wait_for(lambda: made.file.stat().st_size > 600, "a frame in the file", PATIENCE)
        made.end()
    assert {row["eth.src"] for row in made.read() if row["frame.len"] == "333"} == {mac(2).hex(":")}


def test_it_goes_on_when_a_worker_is_killed(switch: StartSwitch, capture: Callable[..., Capturing]) -> None:
    running = switch(bess=True)
    with contextlib.closing(connect(f"unixpacket://{running.bess}")) as one:
        one.send(build_frame(BROADCAST, mac(1), 60))
        running.wait_live(1)
        made = capture(running, "1")
        made.begun(1)
        os.kill(port_of(running, "bess-1")["worker"]["pid"], signal.SIGKILL)
        made.begun(2)
        one.send(build_frame(BROADCAST, mac(1), 777))
        wait_for(lambda: any(row["frame.len"] == "777" for row in made.read()), "a frame after it", PATIENCE)
        made.end()


def test_a_viewer_that_is_killed_leaves_nothing_on(
    switch: StartSwitch, capture: Callable[..., Capturing]
) -> None:
    running = switch(qemu=True)
    with contextlib.ExitStack() as stack:
        pair(running, stack)
        made = capture(running, "all")
        made.begun(2)
        others = [capture(running, "qemu-1") for _ in range(MOST - 1)]
        for each in others:
            each.begun(1)
        further = capture(running, "all")
        _, said = further.process.communicate(timeout=PATIENCE)
        assert further.process.returncode == 1
        assert said == (
            "Error: 4 captures are under way, of all ports; qemu-1; qemu-1; qemu-1; end one of them first\n"
        )
        made.process.kill()
        made.process.wait()
        wait_for(lambda: "the capture of all ports has ended" in running.log(), "its end", PATIENCE)
        next_one = capture(running, "all")
        next_one.begun(2)
        for each in (next_one, *others):
            each.end()


def test_a_viewer_that_is_stuck_loses_frames_and_keeps_no_other_from_capturing(
    switch: StartSwitch, capture: Callable[..., Capturing]
) -> None:
    """It writes to a pipe that is not read: the rings go round, and the summary has what was lost."""
    running = switch(qemu=True)
    with contextlib.ExitStack() as stack:
        one, two = pair(running, stack)
        reading, writing = os.pipe()
        stuck = subprocess.Popen(
            [*COMMAND, str(running.runtime_dir), "qemu-1"],
            cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(writing)
        assert os.read(reading, 4) == b"\n\r\r\n"
        wait_for(lambda: "a capture of qemu-1 begins" in running.log(), "the stuck one", PATIENCE)
        other = capture(running, "qemu-2")
        other.begun(1)
        sent = 8000  # 12 MB, more than a ring
        for number in range(sent):
            one.send(frame := build_frame(mac(2), mac(1), 1514, seed=number))
            expect(two, frame)
        assert "more came faster" not in other.end()
        assert len(other.read()) == sent
        stuck.send_signal(signal.SIGINT)
        with os.fdopen(reading, "rb") as output:
            output.read()
        assert stuck.stderr is not None
        lost = re.search(r"; (\d+) more came faster than they could be written\n", stuck.stderr.read())
        stuck.wait()
        assert lost is not None
        assert int(lost[1]) > 0


def rings(pid: int) -> int:
    """Count the flood rings that a process has mapped; a capture is one of them."""
    return Path(f"/proc/{pid}/maps").read_text().count("/memfd:bulkhead-flood")


def test_captures_end_with_the_supervisor(switch: StartSwitch, capture: Callable[..., Capturing]) -> None:
    """Its successor knows none, so the workers stop copying; frames go on."""
    running = switch(qemu=True)
    with contextlib.ExitStack() as stack:
        one, two = pair(running, stack)
        workers = [port["worker"]["pid"] for port in running.json("status")["ports"]]
        without = [rings(pid) for pid in workers]
        made = capture(running, "all")
        made.begun(2)
        wait_for(lambda: [rings(pid) for pid in workers] != without, "the rings of the capture", PATIENCE)
        assert running.process is not None
        running.process.kill()
        running.process.wait()
        _, said = made.process.communicate(timeout=PATIENCE)
        assert (made.process.returncode, "frames of 2 ports" in said) == (0, True)
        wait_for(lambda: [rings(pid) for pid in workers] == without, "the end of copying", PATIENCE)
        running.start(*running.arguments(qemu=True))
        one.send(frame := build_frame(mac(2), mac(1), 900))
        expect(two, frame)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["web"], "no port 'web' forwards now; supervisor status lists the ports"),
        (["all", "--filter", "tcp prt 1"], "the filter 'tcp prt 1' does not compile: "),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    switch: StartSwitch, capture: Callable[..., Capturing], words: list[str], line: str
) -> None:
    made = capture(switch(qemu=True), *words)
    _, said = made.process.communicate(timeout=PATIENCE)
    assert made.process.returncode == 1
    assert said.startswith(f"Error: {line}")
    assert said.count("\n") == 1


def test_a_full_disk_ends_it_with_a_line(switch: StartSwitch, capture: Callable[..., Capturing]) -> None:
    running = switch(qemu=True)
    with contextlib.ExitStack() as stack:
        one, two = pair(running, stack)
        done = subprocess.run(
            [*COMMAND, str(running.runtime_dir), "all", "-w", "/dev/full"],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (
            1, "Error: cannot write to /dev/full: No space left on device; what came before is there\n"
        )  # fmt: skip
        one.send(frame := build_frame(mac(2), mac(1), 900))
        expect(two, frame)


def test_the_file_has_what_was_copied_before_the_end(
    switch: StartSwitch, capture: Callable[..., Capturing]
) -> None:
    """The viewer is stopped while frames come, and told to end before it reads them."""
    running = switch(qemu=True)
    with contextlib.ExitStack() as stack:
        one, two = pair(running, stack)
        made = capture(running, "qemu-2")
        made.begun(1)
        made.process.send_signal(signal.SIGSTOP)
        sent = 2000  # 3 MB, which is less than a ring
        for number in range(sent):
            one.send(frame := build_frame(mac(2), mac(1), 1514, seed=number))
            expect(two, frame)
        made.process.send_signal(signal.SIGINT)
        made.process.send_signal(signal.SIGCONT)
        assert made.end() == f"{sent} frames of 1 ports\n"
        assert len(made.read()) == sent


def test_a_reader_that_has_seen_enough_ends_it(switch: StartSwitch) -> None:
    """Also while no frame comes that could not be written."""
    running = switch(qemu=True)
    with contextlib.ExitStack() as stack:
        pair(running, stack)
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [*COMMAND, str(running.runtime_dir), "all"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE
        )
        os.close(writing)
        seen = b""
        while b"port 1, qemu" not in seen or b"port 2, qemu" not in seen:
            seen += os.read(reading, 1 << 16)
        os.close(reading)
        assert process.wait(PATIENCE) == 0
        assert process.communicate()[1] == b""


def test_pcap_has_the_frames_of_the_gateway_and_no_others(switch: StartSwitch, tmp_path: Path) -> None:
    requirements.require(("tshark", "root", "tun", *requirements.GATEWAY))
    file = tmp_path / "lan.pcap"
    running = switch("--gateway", "--pcap", str(file), qemu=True)
    assert "a capture of gateway begins" in running.log()  # before a VM can attach
    with contextlib.ExitStack() as stack:
        vms = [stack.enter_context(contextlib.closing(connect(f"unix://{running.qemu}"))) for _ in range(2)]
        running.wait_live(3)
        question = arp(mac(1), "192.168.127.9", "192.168.127.1")
        vms[0].send(question)
        vms[0].receive_matching(lambda frame: frame[12:14] == question[12:14] and frame[:6] == mac(1))
        vms[1].send(hello := build_frame(mac(1), mac(2), 500))
        expect(vms[0], hello)
        running.stop()
    words = [
        "tshark",
        "-r",
        file,
        "-Y",
        "arp",
        "-T",
        "fields",
        "-e",
        "arp.opcode",
        "-e",
        "arp.src.proto_ipv4",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said = [line.split() for line in done.stdout.splitlines()]
    assert ["1", "192.168.127.9"] in said
    assert ["2", "192.168.127.1"] in said
    about = subprocess.run(["capinfos", "-t", file], capture_output=True, text=True, check=True).stdout
    assert "pcap" in about
    assert "pcapng" not in about


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--gateway", "--pcap", "/nonexistent/x"],
            "cannot write to /nonexistent/x",
        ),
        (["--pcap", "x"], "--pcap writes what passes the gateway; give --gateway, or use `capture`"),
    ],
)
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_pcap_that_cannot_be_written_is_said_at_the_start(
    check: list[str], words: list[str], line: str
) -> None:
    requirements.require(("root", "tun", *requirements.GATEWAY))
    with short_directory() as directory:
        done = subprocess.run(
            [sys.executable, "-m", "bulkhead", "run", "--runtime-dir", directory / "run", *check, *words],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"Error: {line}")


def test_sums_of_kernels_with_offloads_and_of_a_vhost_user_vm(
    switch: StartSwitch, capture: Callable[..., Capturing], namespace: Callable[[str], Namespace]
) -> None:
    """Large frames of TAPs are as they are there; capinfos counts what the counters count."""
    running = switch(vhost=True)
    rooms = [namespace("left"), namespace("right")]
    for number, room in enumerate(rooms, 1):
        running.command("attach", "--tap", f"eth0,netns={room.path}", "--name", room.name, "--offload", "tso")
        room.run("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip link set eth0 up")
        room.run(f"ip addr add 10.99.0.{number}/24 dev eth0")
    with contextlib.closing(running.connect("vhost")) as guest:
        running.wait_live(3)
        before = stats(running)
        made = capture(running, "all")
        made.begun(3)
        _stream(*rooms, 1_000_000)
        for number in range(50):
            guest.send(build_frame(BROADCAST, mac(7), 60 + number))
        after = wait_for(lambda: _quiet(running, before), "all frames to be counted", PATIENCE)
        assert "more came faster" not in made.end()
    read = made.read()
    ways = Counter((row["frame.interface_name"], row["frame.packet_flags"][-1]) for row in read)
    counted = {
        (name, way): port[key]["frames"] - before[name][key]["frames"]
        for name, port in after.items()
        for way, key in (("1", "rx"), ("2", "tx"))
    }
    assert ways == {each: count for each, count in counted.items() if count}
    assert counted["vhost-3", "1"] == 50
    assert max(int(row["frame.len"]) for row in read if row["frame.interface_name"] == "left") > 1514
    said = subprocess.run(["capinfos", "-c", "-I", made.file], capture_output=True, text=True, check=True)
    assert re.search(rf"Number of packets: +{len(read)}\n", said.stdout)
    assert "Number of interfaces in file: 3" in said.stdout


def _stream(source: Namespace, target: Namespace, size: int) -> None:
    """Send so many bytes by TCP from one kernel to the other."""
    listener = target.inside(lambda: socket.create_server(("10.99.0.2", 0)))
    port = listener.getsockname()[1]
    with listener, source.inside(socket.socket) as sender:
        sender.settimeout(PATIENCE)
        sender.connect(("10.99.0.2", port))
        receiver, _ = listener.accept()
        with receiver:
            thread = threading.Thread(
                target=lambda: (sender.sendall(bytes(size)), sender.shutdown(socket.SHUT_WR))
            )
            thread.start()
            got = 0
            while more := receiver.recv(1 << 16):
                got += len(more)
            thread.join()
            assert got == size


def _quiet(switch: Switch, before: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return the counters when all of the VM's frames are counted and nothing moves."""
    then = stats(switch)
    if then["vhost-3"]["rx"]["frames"] < before["vhost-3"]["rx"]["frames"] + 50:
        return None
    for _ in range(3):  # a worker publishes its counters before it sleeps
        now = stats(switch)
        if any(now[name][way] != then[name][way] for name in now for way in ("rx", "tx")):
            return None
    return now

"""Captures of kernels with offloads, of vhost-user VMs and of the gateway: sums, tshark and capinfos."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.capturing import Capturing, expect, stats
from tests.helpers.core.claims import arp
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.fixtures import StartSwitch, short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for


def test_sums_of_kernels_with_offloads_and_of_a_vhost_user_vm(
    switch: StartSwitch, capture: Callable[..., Capturing], namespace: Callable[[str], Namespace]
) -> None:
    """Large frames of TAPs are as they are there; capinfos counts what the counters count."""
    running = switch(vhost=True)
    rooms = [namespace("left"), namespace("right")]
    for number, room in enumerate(rooms, 1):
        running.command("attach", "--tap", f"eth0,netns={room.path}", "--name", room.name)
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


def test_ctrl_c_ends_the_file_of_pcap_with_the_switch(tmp_path: Path) -> None:
    """A terminal sends SIGINT to all processes of its foreground."""
    requirements.require(("root", "tun", *requirements.GATEWAY))
    with short_directory() as directory:
        running = Switch(directory, wrap=lambda words: ["setsid", *words])
        try:
            running.start("--gateway", "--pcap", str(tmp_path / "lan.pcap"))
            assert running.process is not None
            os.killpg(running.process.pid, signal.SIGINT)
            assert running.process.wait(PATIENCE) == 0
            assert "has ended before the switch" not in running.log()
            running.assert_nothing_left()
        finally:
            running.kill()


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

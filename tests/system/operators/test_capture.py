"""``supervisor capture`` on a real switch: what tshark reads is what the counters count."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.capture.server import MOST
from tests.helpers.capturing import COMMAND, Capturing, expect, pair, rings, stats
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.fixtures import StartSwitch
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.guests.watching import port_of


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
        after = wait_for(lambda: _grown(running, before), "all counters", PATIENCE)
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


def _grown(switch: Switch, before: dict[str, Any]) -> dict[str, Any] | None:
    """Return the counters when both workers have published theirs."""
    now = stats(switch)
    grown = (
        now["qemu-1"]["rx"]["frames"] - before["qemu-1"]["rx"]["frames"],
        now["qemu-2"]["tx"]["frames"] - before["qemu-2"]["tx"]["frames"],
    )
    return now if grown >= (104, 101) else None


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
        made.begun(2, ended=1)
        frame = build_frame(BROADCAST, mac(1), 777)

        def is_there() -> bool:
            one.send(frame)
            return frame in made.file.read_bytes()

        wait_for(is_there, "a frame after it", PATIENCE)
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
        assert (made.process.returncode, "frames of 2 ports" in said) == (1, True)
        assert said.splitlines()[-1] == (
            "Error: the supervisor has ended, and the capture with it; capture again when it is back"
        )
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


def test_without_a_switch_it_says_what_other_commands_say(tmp_path: Path) -> None:
    none = Switch(tmp_path)
    for words in (("capture", "all", "-w", "-"), ("status",)):
        # What follows names the user's other switches, those of other tests among them.
        said = none.command(*words, check=False).stderr
        assert said.startswith(f"Error: no supervisor runs in {none.runtime_dir}; start one")
    none.runtime_dir.write_text("a file")
    said = none.command("capture", "all", "-w", "-", check=False).stderr
    assert said == none.command("status", check=False).stderr


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


def whole_blocks(data: bytes) -> int:
    """Return how many blocks a pcapng file has; fails if the last one is cut short."""
    at = blocks = 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        assert data[at + 4 : at + 8] == data[at + size - 4 : at + size], "a block is cut short"
        at, blocks = at + size, blocks + 1
    return blocks


def test_a_disk_that_gets_full_meanwhile_ends_it_with_a_line(switch: StartSwitch, tmp_path: Path) -> None:
    running = switch(qemu=True)
    file = tmp_path / "full.pcapng"
    with contextlib.ExitStack() as stack:
        one, two = pair(running, stack)
        process = subprocess.Popen(
            [*COMMAND, str(running.runtime_dir), "all", "-w", str(file)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(process.kill)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))

        def ends() -> bool:
            one.send(frame := build_frame(mac(2), mac(1), 1514))
            expect(two, frame)
            return process.poll() is not None

        wait_for(ends, "the end of the capture")
        _, said = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (
            1, f"Error: cannot write to {file}: File too large; what came before is there\n"
        )  # fmt: skip
        assert 90_000 < file.stat().st_size <= 100_000
        assert whole_blocks(file.read_bytes()) > 50


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

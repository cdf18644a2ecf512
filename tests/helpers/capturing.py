"""``supervisor capture`` to a file, as a process, and what tshark reads of the file."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, connect, mac
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.guests.watching import ask

COMMAND = (sys.executable, "-m", "bulkhead", "capture", "--runtime-dir")
FIELDS = ("frame.interface_name", "frame.packet_flags", "frame.comment", "eth.src", "frame.len")


class Capturing:
    """One ``supervisor capture``, to a file."""

    def __init__(self, switch: Switch, file: Path, *words: str) -> None:
        self.switch, self.file = switch, file
        command = [*COMMAND, str(switch.runtime_dir), "-w", str(file), *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def begun(self, interfaces: int, *, ended: int = 0) -> None:
        """Wait until the file has so many interfaces, and workers copy to all but ``ended`` of them."""
        wait_for(lambda: self.interfaces() >= interfaces, f"{interfaces} interfaces", PATIENCE)
        wait_for(lambda: self._copied() >= interfaces - ended, "the workers to copy", PATIENCE)

    def _copied(self) -> int:
        """Return how many of the viewer's rings a worker has, too."""
        workers = [port["worker"] for port in ask(self.switch)["ports"]]
        theirs = {ring for worker in workers if worker for ring in rings(worker["pid"])}
        return len(rings(self.process.pid) & theirs)

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


def rings(pid: int) -> set[str]:
    """Return the inodes of the capture rings that a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[4] for line in maps if "/memfd:bulkhead-capture" in line}


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
    wait_for(lambda: _counted(switch), "what they sent to be counted")
    return one, two


def _counted(switch: Switch) -> bool:
    """Whether the workers of the two have published what both have sent and heard."""
    ports = stats(switch).values()
    return all(port[way]["frames"] >= 1 for port in ports for way in ("rx", "tx"))

"""A User-Mode Linux guest: a whole kernel as a process, attached to the switch as a native BESS client.

It connects when its interface is brought up, not when it starts. Its processes live in a session of their
own, which is how all of them are killed and how the last one is seen to be gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.guests.console import Console
from tests.guests.machine import Machine
from tests.guests.waiting import wait_for

BOOT_TIMEOUT = 60.0


class UmlGuest(Machine):
    """One running User-Mode Linux. The constructor starts it; ``wait_ready`` waits for its boot."""

    def __init__(self, name: str, switch: Path, mac: str, *, initramfs: Path, directory: Path) -> None:
        super().__init__(name, "vec0")
        # Its memory is a file: in a file system that is memory anyway, if there is one.
        memory = Path("/dev/shm")
        self.process = subprocess.Popen(
            [
                "linux.uml",
                *("mem=96M", f"initrd={initramfs}", "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet"),
                *(f"umid={name}", f"uml_dir={directory}"),
                f"vec0:transport=bess,dst={switch},depth=128,mac={mac}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(memory if os.access(memory, os.W_OK) else directory)},
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.console = Console(name, self.process.stdin.fileno(), self.process.stdout.fileno())

    def wait_ready(self) -> UmlGuest:
        """Wait for the agent, and bring the interface up, which connects it."""
        self.console.wait_ready(BOOT_TIMEOUT)
        self.run(f"ip link set {self.interface} up")
        return self

    def run(self, command: str, timeout: float = 20.0) -> str:
        return self.console.run(command, timeout)

    def start(self, command: str) -> None:
        self.run(f"{command} >/dev/null 2>&1 &")

    def close(self) -> None:
        """Kill the guest with all its processes, and wait until they are gone."""
        session = self.process.pid
        for pid in _session(session):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate()
        wait_for(lambda: not _session(session), lambda: f"{self.name}'s processes {_session(session)} to end")


def _session(session: int) -> list[int]:
    """Return the processes of a session that still run (those that ended and wait to be reaped do not)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(entry.name))
    return found

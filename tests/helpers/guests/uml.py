"""A User-Mode Linux guest: a whole kernel as a process, attached to the switch as a native BESS client.

It connects when its interface is brought up, not when it starts. Its processes live in a session of their
own, which is how all of them are killed and how the last one is seen to be gone. It runs with a library that
lets it run on any processor (``tests/helpers/preload/uml_registers.c``).
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.helpers.guests.console_machine import ConsoleMachine
from tests.helpers.guests.waiting import wait_for

REGISTERS = Path(__file__).parents[1] / "preload" / "uml_registers.c"


class UmlGuest(ConsoleMachine):
    """One running User-Mode Linux. The constructor starts it; ``wait_ready`` waits for its boot."""

    def __init__(
        self, name: str, switch: Path, mac: str, *, initramfs: Path, directory: Path, vhost: bool = False
    ) -> None:
        """``vhost``: by vhost-user, whose front-end this kernel has itself (``virtio_uml``)."""
        # Its memory is a file: in a file system that is memory anyway, if there is one.
        memory = Path("/dev/shm")
        library = directory / "uml_registers.so"
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-D_GNU_SOURCE")
        subprocess.run(["cc", *flags, "-o", library, REGISTERS, "-ldl"], check=True)
        super().__init__(
            name,
            "eth0" if vhost else "vec0",
            [
                "linux.uml",
                *("mem=96M", f"initrd={initramfs}", "con=null", "con0=fd:0,fd:1", "ssl=null", "quiet"),
                *(f"umid={name}", f"uml_dir={directory}"),
                f"virtio_uml.device={switch}:1"
                if vhost
                else f"vec0:transport=bess,dst={switch},depth=128,mac={mac}",
            ],
            env={
                **os.environ,
                "TMPDIR": str(memory if os.access(memory, os.W_OK) else directory),
                "LD_PRELOAD": str(library),
            },
        )

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

"""A machine that is a process of its own, with the agent at its console (see ``console``)."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.helpers.guests.console import Console
from tests.helpers.guests.machine import Machine
from tests.helpers.guests.waiting import PATIENCE

BOOT_TIMEOUT = 60.0


class ConsoleMachine(Machine):
    """A machine that is a process with its agent at stdin and stdout.

    The constructor starts it, ``wait_ready`` waits for its boot, so boots overlap.
    """

    def __init__(
        self, name: str, interface: str, command: list[str], env: dict[str, str] | None = None
    ) -> None:
        super().__init__(name, interface)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.console = Console(name, self.process.stdin.fileno(), self.process.stdout.fileno())

    def wait_ready(self: Any) -> Any:
        """Wait for the agent, and bring the interface up."""
        self.console.wait_ready(BOOT_TIMEOUT)
        self.run(f"ip link set {self.interface} up")
        return self

    def run(self, command: str, timeout: float = PATIENCE) -> str:
        return self.console.run(command, timeout)

    def start(self, command: str) -> None:
        self.run(f"{command} >/dev/null 2>&1 &")

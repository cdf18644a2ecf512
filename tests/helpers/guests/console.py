"""The serial console of a guest: one command at a time, each answered with its output and return code.

The other end is the agent in ``initramfs``. Each command goes out as one line ``NUMBER COMMAND``; the answer
is framed by two marks that carry the same number, so that a line the kernel prints in between, or the late
answer to a command that was given up, is never taken for something else.
"""

from __future__ import annotations

import os
import re
import select
import time

from tests.helpers.guests.machine import CommandError

READY = "guest-agent ready"
LONGEST_COMMAND = 3000  # a terminal line holds 4096


class ConsoleError(Exception):
    """The guest ended or does not answer; carries the last of what it printed."""


class Console:
    """Talks to the agent over a pair of descriptors, which stay the caller's."""

    def __init__(self, name: str, write_fd: int, read_fd: int) -> None:
        self.name = name
        self.log = ""
        self._write_fd = write_fd
        self._read_fd = read_fd
        self._number = 0
        os.set_blocking(read_fd, False)

    def wait_ready(self, timeout: float) -> None:
        """Wait until the agent says that it is there; raises ConsoleError."""
        self._wait(re.compile(re.escape(READY)), time.monotonic() + timeout, "to boot")

    def run(self, command: str, timeout: float) -> str:
        """Run a command line; raises CommandError unless it ends with 0, ConsoleError if no answer comes."""
        if "\n" in command or len(command) > LONGEST_COMMAND:
            raise ValueError("a command is one line that fits a terminal's buffer")
        self._number += 1
        number = self._number
        start = len(self.log)
        os.write(self._write_fd, f"{number} {command}\n".encode())
        mark = re.compile(rf"<<{number} begin>>\r?\n(.*?)\r?\n<<{number} end (\d+)>>", re.DOTALL)
        match = self._wait(mark, time.monotonic() + timeout, f"to answer {command!r}", start)
        output, code = match[1].replace("\r\n", "\n"), int(match[2])
        if code:
            raise CommandError(self.name, command, code, output)
        return output

    def _wait(self, mark: re.Pattern[str], deadline: float, what: str, start: int = 0) -> re.Match[str]:
        poller = select.poll()
        poller.register(self._read_fd, select.POLLIN)
        while not (match := mark.search(self.log, start)):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise ConsoleError(
                    f"{self.name} was waited for {what}; its console ends with:\n{self.log[-3000:]}"
                )
            data = os.read(self._read_fd, 1 << 16)
            if not data:
                raise ConsoleError(
                    f"{self.name} ended when it was {what}; its console ends with:\n{self.log[-3000:]}"
                )
            self.log += data.decode("utf-8", "replace")
        return match

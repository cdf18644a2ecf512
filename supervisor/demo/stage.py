"""The processes of the demo: a real switch in a directory of its own, and the fake VMs attached to it.

Each process runs in its own session, so that Ctrl-C reaches only the demo, which ends the others in order.
``Stage`` is a context manager: however it is left, no process, socket or file stays behind.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, NamedTuple

from forwarder.errors import LocalError

Json = dict[str, Any]

START_S = 20.0
"""Time to start a few Python processes on a busy machine; longer means that something is wrong."""
END_S = 10.0
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the demonstration, rather than leave its switch behind."""
_TIME = re.compile(r"^\d{4}-\d\d-\d\d \S+ ")


class Cast(NamedTuple):
    """One fake VM's part in the demo."""

    name: str
    transport: str
    role: str
    peer: str

    @property
    def mac(self) -> bytes:
        """Its MAC address: locally administered, with its name in it."""
        return b"\x02" + self.name.encode().ljust(5, b"\0")[:5]


ALICE = Cast("alice", "qemu", "loop", "bob")
BOB = Cast("bob", "bess", "mirror", "alice")
CAROL = Cast("carol", "qemu", "source", "dave")
DAVE = Cast("dave", "vfkit", "sink", "carol")
CAST = (ALICE, BOB, CAROL, DAVE)

LISTENERS = {"qemu": "unix", "bess": "unixpacket", "vfkit": "unixgram"}


def heed_no_more(_number: int, _frame: FrameType | None) -> None:
    """Do nothing at a signal. Python complains of a pending one if SIG_IGN takes its handler's place."""


class Guest:
    """One fake VM's process: takes commands, gives reports."""

    def __init__(self, cast: Cast, directory: Path) -> None:
        peer = next(each for each in CAST if each.name == cast.peer)
        arguments = [
            cast.transport,
            str(directory / cast.transport),
            cast.role,
            cast.mac.hex(),
            peer.mac.hex(),
        ]
        self.cast = cast
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.demo.vm", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands: IO[bytes] = self._process.stdin
        self._reports: IO[bytes] = self._process.stdout
        os.set_blocking(self._reports.fileno(), False)
        self._partial = b""

    def tell(self, command: str) -> None:
        """Send one command."""
        self._commands.write(command.encode() + b"\n")
        self._commands.flush()

    def reports(self) -> list[Json]:
        """Return the reports that have come. Raises LocalError if the VM has ended."""
        data = self._partial + (self._reports.read() or b"")
        *lines, self._partial = data.split(b"\n")
        if not lines and self._process.poll() is not None:
            raise LocalError(
                f"the fake VM {self.cast.name} ended; the switch hung up or could not be reached"
            )
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        """Close its standard input, which ends it."""
        self._commands.close()
        _wait(self._process)
        self._reports.close()


class Stage:
    """The switch and its VMs, from ``with`` to the end of its block.

    Raises LocalError if the switch does not start.
    """

    def __init__(self, runtime_dir: str | None = None) -> None:
        """Use ``runtime_dir`` for the switch; None: a temporary one."""
        self._left = ExitStack()
        self._wanted = runtime_dir
        self.runtime = Path()
        self.log = Path()
        self.guests: dict[str, Guest] = {}

    def __enter__(self) -> "Stage":
        try:
            directory = Path(tempfile.mkdtemp(prefix="bulkhead-demo-"))
            self._left.callback(shutil.rmtree, directory, ignore_errors=True)
            self.runtime, self.log = Path(self._wanted or directory / "run"), directory / "log"
            self._start_switch(directory)
            for cast in CAST:
                guest = Guest(cast, directory)
                self._left.callback(guest.end)
                self.guests[cast.name] = guest
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._clear()

    def _clear(self) -> None:
        """End everything; a second Ctrl-C does not interrupt this."""
        before = {number: signal.signal(number, heed_no_more) for number in ENDS}
        try:
            self._left.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start_switch(self, directory: Path) -> None:
        listeners = [
            word
            for transport, scheme in LISTENERS.items()
            for word in (f"--listen-{transport}", f"{scheme}://{directory / transport}")
        ]
        with self.log.open("wb") as log:
            switch = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "bulkhead",
                    "run",
                    "--runtime-dir",
                    str(self.runtime),
                    *listeners,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert switch.stdout is not None
        self._left.callback(switch.stdout.close)
        self._left.callback(_wait, switch)
        self._left.callback(switch.terminate)
        deadline = time.monotonic() + START_S
        said = b""
        while b"\n" not in said:
            if not select.select([switch.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise LocalError(f"the switch was not ready after {START_S:.0f} s: {self.last_words()}")
            more = os.read(switch.stdout.fileno(), 4096)
            if not more:
                raise LocalError(f"the switch did not start: {self.last_words()}")
            said += more

    def last_words(self) -> str:
        """Return the last line of the switch's log, without its time."""
        lines = self.log.read_text(errors="replace").splitlines()
        return _TIME.sub("", lines[-1]) if lines else "it said nothing"


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to end; kill it if it does not."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

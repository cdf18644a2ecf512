"""Do ``--pcap``: write all frames of the gateway's port to a file, in gvproxy's format.

Theory of operation. gvproxy captures the link of its network stack, so frames from VM to VM are not in its
file. Here a process of its own captures the port `gateway`: ``supervisor capture`` with the file as its
output. ``begin`` returns when the gateway's worker copies frames, so the first lease is in the file. If the
process ends before the switch, the log tells the reason and the switch goes on. The process ends with the
switch, even if the switch is killed; it has a session of its own, so Ctrl-C does not end it earlier.

Example: `run --gateway --pcap lan.pcap`, one VM: its DHCP, its questions for names and all its connections.
"""

import errno
import os
import signal
import subprocess
from collections.abc import Callable

from forwarder.errors import LocalError, shortage
from forwarder.loop import Loop
from supervisor.base.logs import log
from supervisor.base.paths import absolute
from supervisor.base.program import command

NEEDS_GATEWAY = "--pcap writes what passes the gateway; give --gateway, or use `capture`"
ENDS_S = 5.0
"""Time for the last frames to reach the disk; then the process is killed."""


def check(path: str) -> str:
    """Return the absolute path of a file that could be written. Raises LocalError as the start would."""
    whole = absolute(path)
    why = 0
    if not path or not os.path.isdir(os.path.dirname(whole)):
        why = errno.ENOENT
    elif os.path.isdir(whole):
        why = errno.EISDIR
    elif not os.access(whole if os.path.exists(whole) else os.path.dirname(whole), os.W_OK):
        why = errno.EACCES
    if why:
        raise _unwritable(path, why)
    return whole


def _unwritable(path: str, why: int) -> LocalError:
    return LocalError(f"cannot write to {path or 'no file'}: {os.strerror(why)}")


class Recorder:
    """The process that writes the file."""

    def __init__(self, loop: Loop, path: str, runtime_dir: str, port: str) -> None:
        """Start it, with an empty file. Raises LocalError."""
        self._loop, self._path = loop, path
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(path, error.errno or 0) from None
        words = ("capture", "--runtime-dir", runtime_dir, "--format", "pcap", "-w", "-", port)
        argv, environment = command("bulkhead", *words)
        try:
            self._process = subprocess.Popen(
                argv, env=environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise LocalError(f"cannot start the capture to {path}: {shortage(error)}") from None
        finally:
            os.close(file)
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.watch(self._pidfd, lambda _: self._ended())

    def begin(self, turn: Callable[[float], None], done: Callable[[], bool]) -> None:
        """Run the loop until the port's frames are copied (``done``).

        Raises LocalError if the capture fails.
        """
        while not done():
            if self._process.poll() is not None:
                raise LocalError(f"cannot capture to {self._path}: {self._reason()}")
            turn(0.05)

    def close(self) -> None:
        """End the process, and wait for the end of the file."""
        if self._pidfd >= 0:
            self._unwatch()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _ended(self) -> None:
        self._unwatch()
        self._process.wait()
        log.warning("the capture to %s has ended before the switch: %s", self._path, self._reason())

    def _unwatch(self) -> None:
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1

    def _reason(self) -> str:
        assert self._process.stderr is not None
        said = self._process.stderr.read().strip().splitlines()
        return said[-1].removeprefix("Error: ") if said else f"status {self._process.returncode}"

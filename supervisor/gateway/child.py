"""The process of a gateway: start it with a channel, end it, and wait for its end by pidfd.

Its namespace's process ends with it; the gateway itself may not end any process once it is in its cell, so
it hands over a pidfd, and a namespace that does not end by itself is ended here. The first one starts before
the supervisor has imported its modules, so that both import at the same time (``cli.run``); its channel
keeps what it is asked. If supervisor and gateway are killed, a namespace that does not end is ended by the
next supervisor. Runs in the supervisor's loop; nothing here waits but ``close``, for a moment.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Identity
from supervisor.base.child_process import ChildProcess
from supervisor.base.proc import identity_of

if TYPE_CHECKING:
    from supervisor.base.saved_state import SavedState

NAMES = ("the gateway", "the gateway's namespace")
"""Of its processes, for operators."""
END_S = 3.0
"""The gateway ends milliseconds after its channel; its namespace's process may take a second."""


PART = "namespace"
"""Of the saved state: process id and start time of the namespace's process."""


def end_left_over(saved: "SavedState") -> None:
    """End the namespace's process of the supervisor before: a stopped one outlives its gateway."""
    match saved.get(PART):
        case [int(pid), int(start)]:
            with suppress(OSError):  # it has ended
                pidfd = os.pidfd_open(pid)
                try:
                    if identity_of(pidfd) == (pid, start):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)


class GatewayChild(ChildProcess):
    """One process, from its start until ``reap``."""

    def __init__(self) -> None:
        """Start the process. Raises LocalError."""
        self._loop: Loop | None = None
        self._namespace = -1
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """The supervisor's end of the channel; the caller closes it."""
        try:
            super().__init__("the gateway", "gateway", str(theirs.fileno()), pass_fds=(theirs.fileno(),))
        except LocalError:
            self.channel.close()
            raise
        finally:
            theirs.close()

    def watch(self, loop: Loop, ended: Callable[[], None]) -> None:
        """Call ``ended`` when it may have ended."""
        self._loop = loop
        loop.watch(self.pidfd, lambda _: ended())

    def processes(self) -> tuple[tuple[str, Identity], ...]:
        """Return the gateway's process and that of its namespace by name, as far as they are there."""
        found = zip(NAMES, map(identity_of, (self.pidfd, self._namespace)), strict=True)
        return tuple((name, identity) for name, identity in found if identity is not None)

    @property
    def runs(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def takes_along(self, pidfd: int, saved: "SavedState") -> None:
        """Take over the pidfd of the process that is to end with it, and save which one it is."""
        self._namespace = pidfd
        saved.put(PART, identity_of(pidfd))

    def reap(self) -> str:
        """Wait for the process, which has ended or is about to; return how it ended."""
        if self._loop is not None:
            self._loop.unwatch(self.pidfd)
        how = super().reap()
        if self._namespace >= 0:
            with suppress(OSError):  # it has ended already
                signal.pidfd_send_signal(self._namespace, signal.SIGKILL)
            os.close(self._namespace)
            self._namespace = -1
        return how

    def close(self) -> None:
        """Wait for END_S at most, then kill the process."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self.kill()
        self.reap()

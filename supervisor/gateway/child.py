"""The process of a gateway: started with a channel, ended by the end of that, and waited for by its pidfd.

It has a session of its own, so a terminal's signals do not reach it. Runs in the supervisor's loop; nothing
here waits but ``close``, for a moment.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress

from forwarder.errors import LocalError
from forwarder.loop import Loop
from supervisor.fleet.processes import command

END_S = 3.0
"""The gateway ends in milliseconds once its channel has; the namespace inside it has a second."""


class GatewayChild:
    """One process, from its start until ``reap``."""

    def __init__(self, loop: Loop, ended: Callable[[], None]) -> None:
        """Start it; ``ended`` is called when it may have ended. Raises LocalError."""
        self._loop = loop
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """The supervisor's end of the channel, which is the caller's."""
        argv, environment = command("gateway", str(theirs.fileno()))
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            self.channel.close()
            raise LocalError(f"cannot start the gateway: {error.strerror}") from None
        finally:
            theirs.close()
        loop.watch(self._pidfd, lambda _: ended())

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()

    def reap(self) -> str:
        """Wait for its end, which has come or is about to; return how it ended."""
        status = self._process.wait()
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        return _how(status)

    def close(self) -> None:
        """Wait for END_S at most, and make an end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self.kill()
        self.reap()


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"

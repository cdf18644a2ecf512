"""The process of a template of workers: start it with a channel, end it, and wait for its end.

The first one starts before the supervisor has imported its modules, so that both import at the same time
(``cli.run``); its channel keeps what it is asked. So this file imports little.
"""

import os
import socket
import subprocess

from forwarder.errors import LocalError
from supervisor.base.program import command, how_it_ended

MODULE = "workers"


class TemplateProcess:
    """One process, from its start until ``reap``."""

    def __init__(self, runtime_dir: str) -> None:
        """Start it; ``runtime_dir`` is absolute.

        Raises LocalError: out of processes, memory or descriptors.
        """
        argv, environment = command(MODULE, runtime_dir)
        try:
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise LocalError(f"cannot make a template's channel: {error.strerror}") from None
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            self.channel.close()
            raise LocalError(f"cannot start a template of workers: {error.strerror}") from None
        finally:
            theirs.close()
        try:
            self.pidfd = os.pidfd_open(self._process.pid)
            """Readable when it has ended."""
        except OSError as error:
            self.channel.close()
            self._process.kill()
            self._process.wait()
            raise LocalError(f"cannot watch a template of workers: {error.strerror}") from None

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def reap(self) -> str:
        """Wait for it, which has ended or is about to; return how it ended. The user closes its channel."""
        how = how_it_ended(self._process.wait())
        os.close(self.pidfd)
        return how

    def close(self) -> None:
        """End a process that nobody has used."""
        self.channel.close()
        self.kill()
        self.reap()

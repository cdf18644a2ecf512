"""The process of a template of workers: start it with a channel, and end it.

The first one starts before the supervisor has imported its modules, so that both import at the same time
(``cli.run``); its channel keeps what it is asked. So this file imports little.
"""

import socket

from forwarder.errors import LocalError, shortage
from supervisor.base.child_process import ChildProcess

MODULE = "workers"


class TemplateProcess(ChildProcess):
    """One process, from its start until ``reap``; the user closes its channel."""

    def __init__(self, runtime_dir: str) -> None:
        """Start it; ``runtime_dir`` is absolute.

        Raises LocalError: out of processes, memory or descriptors.
        """
        try:
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise LocalError(f"cannot make a template's channel: {shortage(error)}") from None
        try:
            super().__init__("a template of workers", MODULE, runtime_dir, stdin=theirs.fileno())
        except LocalError:
            self.channel.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """End a process whose channel has no user."""
        self.channel.close()
        self.kill()
        self.reap()

"""A process of one of our packages: start it, watch it by a pidfd, and wait for its end.

It has a session of its own, so a terminal's signals do not reach it. It is started before most modules are
imported (``first_processes``), so this file imports little.
"""

import os
import subprocess

from forwarder.errors import LocalError, shortage
from supervisor.base.program import command, how_it_ended


class ChildProcess:
    """One process, from its start until ``reap``."""

    def __init__(
        self,
        what: str,
        module: str,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """Start it; ``what`` it is called in a sentence.

        Raises LocalError: out of processes, memory or descriptors; nothing is left behind then.
        """
        argv, environment = command(module, *arguments)
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except OSError as error:
            raise LocalError(f"cannot start {what}: {shortage(error)}") from None
        try:
            self.pidfd = os.pidfd_open(self._process.pid)
            """Readable when it has ended."""
        except OSError as error:
            self._process.kill()
            self._process.wait()
            raise LocalError(f"cannot watch {what}: {shortage(error)}") from None

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def reap(self) -> str:
        """Wait for it, which has ended or is about to; return how it ended."""
        how = how_it_ended(self._process.wait())
        os.close(self.pidfd)
        return how

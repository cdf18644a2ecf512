"""Worker processes: known by (pid, start time), watched and ended through pidfds.

A process is known by its id and start time. A pidfd is readable when its process has ended, also if it is not
our child. So workers that were taken over from a dead supervisor are watched like our own, without a signal
handler. A signal through a pidfd never reaches a later process with the same id.

A worker is asked first: the caller of ``end`` has sent Drain or closed the channel. If the worker is still
there after DRAIN_S, it gets SIGTERM, and KILL_S later SIGKILL.

A worker that our template has forked (``template``) is our child all the same, and reaped here.

Workers run in their own session, so that Ctrl-C in a terminal reaches only the supervisor. They run in ``/``,
so that they keep no directory busy, and no directory adds modules to them.
"""

import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Identity
from forwarder.rendezvous import CHANNEL, MEMBERSHIP, PORT, worker_path
from supervisor.base.proc import parent_of, start_time, user_of
from supervisor.base.program import how_it_ended
from supervisor.pool.template_process import MODULE

NOBODY = 65534
"""The user that a worker of root changes to (``cell.c``)."""
DRAIN_S = 1.5
"""A worker that drains has its egress queue to write: a megabyte to a VM that reads."""
KILL_S = 1.0

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE, signal.SIGTRAP)
"""Signals by which a process ends that has used wrong memory, or noticed that."""


class Exit(NamedTuple):
    """The end of a process."""

    how: str
    """In words."""
    clean: bool = False
    """Whether it may have ended cleanly."""
    crashed: bool = False
    """Whether it was one of CRASHES."""


Ended = Callable[[Identity, Exit], None]
"""Called when a process has ended."""


class Process:
    """One worker process."""

    __slots__ = ("_is_child", "end_at", "ending", "identity", "pidfd")

    def __init__(self, identity: Identity, pidfd: int, *, is_child: bool) -> None:
        self.identity = identity
        self.pidfd = pidfd
        self._is_child = is_child
        self.ending = 0
        """The last request to end: 0 none, 1 told, 2 SIGTERM, 3 SIGKILL."""
        self.end_at = float("inf")
        """When to send the next request."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if the process has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> Exit:
        """Return how a process that has ended did so.

        A process that is not our child has no exit status for us; it may have ended cleanly.
        """
        if self._is_child:
            with suppress(ChildProcessError):  # where we were started with SIGCHLD ignored, the kernel reaps
                code = os.waitstatus_to_exitcode(os.waitpid(self.identity.pid, 0)[1])
                return Exit(f"it {how_it_ended(code)}", clean=code == 0, crashed=-code in CRASHES)
        return Exit("it ended", clean=True)


class Processes:
    """All worker processes, from their start or adoption to their end."""

    def __init__(self, loop: Loop, runtime_dir: str, ended: Ended) -> None:
        self._loop = loop
        self._ended = ended
        self._runtime_dir = runtime_dir
        self._processes: dict[Identity, Process] = {}
        self._ending: dict[Identity, Process] = {}
        """Processes that were asked to end. Each turn looks at these only."""

    def __len__(self) -> int:
        return len(self._processes)

    def __iter__(self) -> Iterator[Identity]:
        return iter(list(self._processes))

    def get(self, identity: Identity) -> Process | None:
        """Return the process, if it is known and has not ended."""
        return self._processes.get(identity)

    def take(self, pid: int) -> Process:
        """Watch a worker that our template has forked. Raises LocalError, and has ended it."""
        try:
            return self._watch(Identity(pid, start_time(pid)), is_child=True)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise LocalError(f"cannot watch a worker: {error.strerror}") from None

    def end_unknown(self) -> None:
        """End unknown workers that are our children: their template died before it reported them.

        Such a worker may have ended already. Then only its files are left.
        """
        for identity in survivors(self._runtime_dir):
            with suppress(OSError):  # it has ended meanwhile
                if identity not in self._processes and parent_of(identity.pid) == os.getpid():
                    self._watch(identity, is_child=True).signal(signal.SIGKILL)
        remove_stale_files(self._runtime_dir)

    def adopt(self, identity: Identity) -> Process:
        """Watch a worker that another supervisor started. Raises LocalError if it has ended."""
        known = self._processes.get(identity)
        if known is not None:
            return known
        try:
            process = self._watch(identity, is_child=False)
            if start_time(identity.pid) == identity.start:
                return process
            self._forget(process)
        except OSError:
            pass
        raise LocalError(f"there is no worker process {identity.pid}")

    def kill(self, identity: Identity) -> None:
        """Kill a process that hangs and reacts to no message."""
        process = self._processes.get(identity)
        if process is not None:
            process.signal(signal.SIGKILL)

    def end(self, identity: Identity, now: float, *, notified: bool = True) -> None:
        """End the process: wait first if it was ``notified``, else send SIGTERM at once. Idempotent."""
        process = self._processes.get(identity)
        if process is None or process.ending >= (1 if notified else 2):
            return
        self._ending[identity] = process
        process.ending = 1
        process.end_at = now + DRAIN_S
        if not notified:
            self._insist(process, now)

    def tick(self, now: float) -> None:
        """Send the next request to processes that have not ended."""
        for process in self._ending.values():
            if process.end_at <= now:
                self._insist(process, now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min((process.end_at for process in self._ending.values()), default=float("inf"))

    def clear_away(self, identities: Iterable[Identity]) -> None:
        """End these processes and remove their files, without a loop; ``Ended`` is not called."""
        killed = [process for each in identities if (process := self._processes.get(each)) is not None]
        for process in killed:
            process.signal(signal.SIGKILL)
        for process in killed:
            select.select([process.pidfd], [], [], KILL_S)
            self._forget(process)
            process.reap()

    def _insist(self, process: Process, now: float) -> None:
        process.ending += 1
        process.signal(signal.SIGTERM if process.ending == 2 else signal.SIGKILL)
        process.end_at = now + KILL_S

    def _watch(self, identity: Identity, *, is_child: bool) -> Process:
        process = Process(identity, os.pidfd_open(identity.pid), is_child=is_child)
        self._processes[identity] = process
        self._loop.watch(process.pidfd, lambda _: self._on_end(process))
        return process

    def _on_end(self, process: Process) -> None:
        if process.identity in self._processes:
            self._forget(process)
            self._ended(process.identity, process.reap())

    def _forget(self, process: Process) -> None:
        del self._processes[process.identity]
        self._ending.pop(process.identity, None)
        self._loop.unwatch(process.pidfd)
        os.close(process.pidfd)
        remove_files(self._runtime_dir, process.identity.pid)


def survivors(runtime_dir: str) -> list[Identity]:
    """Return the workers of this directory, and what else has their command line: a template."""
    tail = [b"-m", MODULE.encode(), os.fsencode(runtime_dir), b""]
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                if words[-4:] == tail and user_of(int(entry)) in (os.geteuid(), _worker_user()):
                    found.append(Identity(int(entry), start_time(int(entry))))
    return found


def _worker_user() -> int:
    """Return the user of a worker in its cell: user "nobody", if it was started by root."""
    return NOBODY if os.geteuid() == 0 else os.geteuid()


def remove_files(runtime_dir: str, pid: int) -> None:
    """Remove the files of a worker that has ended."""
    for kind in (CHANNEL, MEMBERSHIP, PORT):
        with suppress(OSError):
            os.unlink(worker_path(runtime_dir, pid, kind))


def remove_stale_files(runtime_dir: str) -> None:
    """Remove the files of all workers of this directory that have ended.

    The user may have removed the directory; then no file is left.
    """
    try:
        names = os.listdir(runtime_dir)  # first: it has no files of a worker that is born meanwhile
    except FileNotFoundError:
        return
    living = {each.pid for each in survivors(runtime_dir)}
    for name in names:
        pid, dot, kind = name.partition(".")
        if pid.isdigit() and dot + kind in (CHANNEL, MEMBERSHIP, PORT) and int(pid) not in living:
            remove_files(runtime_dir, int(pid))

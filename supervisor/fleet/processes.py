"""Start, watch and end worker processes, through pidfds.

A process is known by its id and start time. A pidfd is readable when its process has ended, also if it is not
our child. So workers that were taken over from a dead supervisor are watched like our own, without a signal
handler. A signal through a pidfd never reaches a later process with the same id.

A worker is asked first: the caller of ``end`` has sent Drain or closed the channel. If the worker is still
there after DRAIN_S, it gets SIGTERM, and KILL_S later SIGKILL.

A worker gets its end of the channel as standard input. So a channel belongs to one known process, whatever
the worker sends over it.

Workers run in their own session, so that Ctrl-C in a terminal reaches only the supervisor. They run in ``/``,
so that they keep no directory busy, and no directory adds modules to them.
"""

import os
import select
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import forwarder
from forwarder.channel import Channel
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Identity
from forwarder.rendezvous import CHANNEL, MEMBERSHIP, worker_path
from supervisor.base.proc import start_time, user_of

MODULE = "workers"
NOBODY = 65534
"""The user that a worker of root changes to (``cell.c``)."""
DRAIN_S = 1.5
"""A worker that drains has its egress queue to write: a megabyte to a VM that reads."""
KILL_S = 1.0

Ended = Callable[[Identity, bool, str], None]
"""Called when a process has ended: whether the exit may be clean, and how it ended in words."""


class Process:
    """One worker process."""

    __slots__ = ("_child", "end_at", "ending", "identity", "pidfd")

    def __init__(self, identity: Identity, pidfd: int, child: subprocess.Popen[bytes] | None) -> None:
        self.identity = identity
        self.pidfd = pidfd
        self._child = child
        self.ending = 0
        """The last request to end: 0 none, 1 told, 2 SIGTERM, 3 SIGKILL."""
        self.end_at = float("inf")
        """When to send the next request."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; does nothing if the process has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> tuple[bool, str]:
        """Return whether a process that has ended may have ended cleanly, and how it ended in words.

        A process that is not our child has no exit status for us; it may have ended cleanly.
        """
        if self._child is None:
            return True, "it ended"
        status = self._child.wait()
        if status >= 0:
            return status == 0, f"it ended with {status}"
        with suppress(ValueError):
            return False, f"it was ended by {signal.Signals(-status).name}"
        return False, f"it was ended by signal {-status}"


class Processes:
    """All worker processes, from their start or adoption to their end."""

    def __init__(self, loop: Loop, runtime_dir: str, ended: Ended) -> None:
        self._loop = loop
        self._ended = ended
        self._runtime_dir = runtime_dir
        self._argv, self._environment = command(MODULE, runtime_dir)
        self._processes: dict[Identity, Process] = {}

    def __len__(self) -> int:
        return len(self._processes)

    def __iter__(self) -> Iterator[Identity]:
        return iter(list(self._processes))

    def get(self, identity: Identity) -> Process | None:
        """Return the process, if it is known and has not ended."""
        return self._processes.get(identity)

    def start(self) -> tuple[Process, Channel]:
        """Start a worker. Raises LocalError if processes, memory or descriptors run out."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise LocalError(f"cannot make a worker's channel: {error.strerror}") from None
        channel = Channel(ours)
        try:
            return self._start(theirs), channel
        except LocalError:
            channel.close()
            raise
        finally:
            theirs.close()

    def _start(self, stdin: socket.socket) -> Process:
        try:
            child = subprocess.Popen(
                self._argv,
                stdin=stdin.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=self._environment,
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            raise LocalError(f"cannot start a worker: {error.strerror}") from None
        try:
            return self._watch(Identity(child.pid, start_time(child.pid)), child)
        except OSError as error:
            child.kill()
            child.wait()
            raise LocalError(f"cannot watch a worker: {error.strerror}") from None

    def adopt(self, identity: Identity) -> Process:
        """Watch a worker that another supervisor started. Raises LocalError if it has ended."""
        known = self._processes.get(identity)
        if known is not None:
            return known
        try:
            process = self._watch(identity, None)
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
        process.ending = 1
        process.end_at = now + DRAIN_S
        if not notified:
            self._insist(process, now)

    def tick(self, now: float) -> None:
        """Send the next request to processes that have not ended."""
        for process in self._processes.values():
            if process.end_at <= now:
                self._insist(process, now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min((process.end_at for process in self._processes.values()), default=float("inf"))

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

    def _watch(self, identity: Identity, child: subprocess.Popen[bytes] | None) -> Process:
        process = Process(identity, os.pidfd_open(identity.pid), child)
        self._processes[identity] = process
        self._loop.watch(process.pidfd, lambda _: self._on_end(process))
        return process

    def _on_end(self, process: Process) -> None:
        if process.identity in self._processes:
            self._forget(process)
            self._ended(process.identity, *process.reap())

    def _forget(self, process: Process) -> None:
        del self._processes[process.identity]
        self._loop.unwatch(process.pidfd)
        os.close(process.pidfd)
        remove_sockets(self._runtime_dir, process.identity.pid)


def command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return argument list and environment of a process that is one of our packages.

    If the packages are installed, nothing else can add modules (``-I``). In a source tree, their
    directory has to be named.
    """
    root = str(Path(forwarder.__file__).resolve().parents[1])
    installed = root in [str(Path(each).resolve()) for each in site.getsitepackages()]
    environment = dict(os.environ)
    if not installed:
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{root}{os.pathsep}{inherited}" if inherited else root
    return [sys.executable, *(["-I"] if installed else []), "-m", module, *arguments], environment


def survivors(runtime_dir: str) -> list[Identity]:
    """Return the workers of this directory that a dead supervisor has left behind."""
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


def remove_sockets(runtime_dir: str, pid: int) -> None:
    """Remove the socket files of a worker that has ended."""
    for kind in (CHANNEL, MEMBERSHIP):
        with suppress(OSError):
            os.unlink(worker_path(runtime_dir, pid, kind))


def remove_stale_sockets(runtime_dir: str) -> None:
    """Remove the socket files of all workers of this directory that have ended."""
    living = {each.pid for each in survivors(runtime_dir)}
    for name in os.listdir(runtime_dir):
        pid, dot, kind = name.partition(".")
        if pid.isdigit() and dot + kind in (CHANNEL, MEMBERSHIP) and int(pid) not in living:
            remove_sockets(runtime_dir, int(pid))

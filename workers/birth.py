"""Prepare a worker: open everything that it will ever need, then enter its cell.

Theory of operation. A guest that takes over its worker must find nothing to attack further. So the worker
opens everything that has a name before it gets a VM. Then it enters its cell (``_core.cell_restrict``), in
which it can only use what it has:

- the *channel*: one end of a socket pair that the supervisor made, given to it as standard input. Both ends
  know the other process, so no message has to name its sender;
- the *door*: a listening socket, ``PID.channel``. A worker that has lost its supervisor waits here for the
  next one, and accepts only the process that holds the lock of the runtime directory;
- the *lock file*, to read the id of that process;
- the *subscription*, ``PID.members``, to which a supervisor's publisher connects;
- what its engine sleeps on;
- descriptors of its own ``smaps_rollup`` and ``fd`` in /proc, for the supervisor to read: once the process
  is not dumpable, an ordinary user cannot open them any more.

In the cell, standard error is /dev/null, since a hostile process could fill a disk with it. A worker sends
its log lines over its channel (``Note``), where the supervisor can hold it back.

Order: Landlock holds for threads that are started later, so ZeroMQ starts its threads after
``cell_restrict``; all of them must run before ``cell_filter`` forbids new ones. The table of descriptors
grows before there are threads (``forwarder.process.descriptors``).
"""

import os
import signal
import socket
from contextlib import suppress

from forwarder import _core
from forwarder.channel import Channel, ChannelClosedError, credentials_of
from forwarder.names import Cell
from forwarder.process.descriptors import grow_descriptor_table
from forwarder.rendezvous import CHANNEL, LOCK, MEMBERSHIP, PORT, path, worker_path
from workers.subscription import Subscription

KIND = "worker"
"""Of cell."""

DESCRIPTOR_TABLE = 512
"""Room for the flood rings of all other ports, which come in one message (at most 253), and for as many rings
of conversations."""

DOOR_BACKLOG = 8
"""Connections that may wait at the door. Those of other processes are accepted and closed, so that they do
not add up."""


class Birthright:
    """The descriptors of a worker before it has a port."""

    def __init__(self, runtime_dir: str) -> None:
        """Open them, and enter the cell.

        Raises OSError if the runtime directory cannot be used (any more).
        """
        self.channel = Channel(socket.socket(fileno=os.dup(0)))
        self.supervisor = self.channel.credentials().pid
        _make_empty(worker_path(runtime_dir, os.getpid(), PORT))
        self.door = _bind(runtime_dir, CHANNEL, socket.SOCK_SEQPACKET)
        members = _bind(runtime_dir, MEMBERSHIP, socket.SOCK_STREAM)
        self._lock = os.open(path(runtime_dir, LOCK), os.O_RDONLY | os.O_CLOEXEC)
        self.proc = (_open_own("smaps_rollup"), _open_own("fd"))
        self.signals = _signals()
        self.waiter = _core.waiter_create()
        for standard in (0, 2):
            os.dup2(1, standard)
        grow_descriptor_table(DESCRIPTOR_TABLE)
        restricted, abi = _core.cell_restrict(KIND)
        self.subscription = Subscription(members, worker_path(runtime_dir, os.getpid(), MEMBERSHIP))
        self.cell = Cell((*restricted, *_core.cell_filter(KIND)), abi)

    def answer_door(self) -> bool:
        """Accept the next supervisor; return whether ``channel`` leads to it now."""
        while True:
            try:
                sock, _ = self.door.accept()
            except OSError:
                return False
            pid = credentials_of(sock).pid
            if pid == self._lock_holder():
                self.channel, self.supervisor = Channel(sock), pid
                return True
            sock.close()

    def _lock_holder(self) -> int:
        """Return the process id of the supervisor of the runtime directory; -1 while there is none."""
        try:
            return int(os.pread(self._lock, 32, 0).split(b"\n")[0])
        except (OSError, ValueError):
            return -1

    def close(self) -> None:
        """Close everything; the other end still reads the messages that were sent."""
        with suppress(ChannelClosedError):
            self.channel.flush()
        self.channel.close()
        self.subscription.close()


def _bind(runtime_dir: str, kind: str, socket_type: int) -> socket.socket:
    file = worker_path(runtime_dir, os.getpid(), kind)
    with suppress(FileNotFoundError):
        os.unlink(file)  # of a dead process with the same id
    sock = socket.socket(socket.AF_UNIX, socket_type | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        sock.bind(file)
    finally:
        os.umask(mask)
    sock.listen(DOOR_BACKLOG)
    return sock


def _make_empty(file: str) -> None:
    """Make the file that the supervisor writes when a VM comes, which would wait for a disk otherwise.

    If there is no room now, the supervisor tries again.
    """
    with suppress(OSError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _signals() -> int:
    """Return a descriptor that is readable from the first signal on.

    A Python handler alone is not enough. If a signal arrives after the loop's last check and before the core
    sleeps, its handler runs only when the core returns, at the next deadline.
    """
    readable, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    return readable


def _open_own(name: str) -> int:
    try:
        return os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(1)  # a kernel without this file: /dev/null instead

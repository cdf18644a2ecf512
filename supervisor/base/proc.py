"""Identify a process by ``/proc``: process id and start time, so that a reused id is not mistaken for it."""

import os

from forwarder.errors import LocalError
from forwarder.names import Identity


def check() -> None:
    """Raise LocalError unless ``/proc`` shows this process: no worker could be watched."""
    try:
        shown = os.readlink("/proc/self")
    except OSError:
        shown = ""
    if shown != str(os.getpid()):
        why = "is that of another PID namespace" if shown else "is missing"
        raise LocalError(f"/proc {why}, and workers are watched there; mount it: mount -t proc proc /proc")


def start_time(pid: int) -> int:
    """Return field 22 of ``/proc/<pid>/stat``. Raises OSError if there is no such process."""
    return int(_fields(pid)[19])


def state_of(pid: int) -> str:
    """Return the state of a process: R, S, D, T, Z (proc_pid_stat(5)). Raises OSError."""
    return _fields(pid)[0].decode()


def exists(identity: Identity) -> bool:
    """Whether exactly this process is there and has not ended."""
    try:
        fields = _fields(identity.pid)
    except OSError:
        return False
    return int(fields[19]) == identity.start and fields[0] != b"Z"


def identity_of(pidfd: int) -> Identity | None:
    """Return the process of a pidfd; None if it has ended."""
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
            pid = next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
        return Identity(pid, start_time(pid))
    except OSError:  # also of the number -1, which an ended process has
        return None


def parent_of(pid: int) -> int:
    """Return the parent of a process. Raises OSError if there is no such process."""
    return int(_fields(pid)[1])


def user_of(pid: int) -> int:
    """Return the effective user of a process; its files in /proc may belong to root. Raises OSError."""
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Uid:"):
                return int(line.split()[2])
    return -1


def _fields(pid: int) -> list[bytes]:
    """Return the fields of ``/proc/<pid>/stat`` from the state on: behind the name, which may hold blanks."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()

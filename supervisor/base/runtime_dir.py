"""The runtime directory of one supervisor: its sockets and its lock, private to its user.

The lock is a ``flock`` on ``supervisor.lock``, so the kernel releases it when the process ends, however it
ends. Its text (process id, epoch, first port epoch) is for the next supervisor and for people. A supervisor
that gets the lock and finds text in it takes over from a dead supervisor: its sockets are stale, and its
workers may still run. A clean exit removes everything that was made here, the lock last.

Epochs: a supervisor's epoch is its start time in nanoseconds, and always greater than its predecessor's.
Epochs of ports start at 1, or ``EPOCH_STRIDE`` beyond the predecessor's start, past every epoch that it can
have given out. If the text of the lock is damaged, they start at the time in nanoseconds, which no counter
has reached.
"""

import errno
import fcntl
import os
import stat
import time
from contextlib import suppress
from typing import NamedTuple

from forwarder import rendezvous, unix_sockets
from forwarder.errors import LocalError
from forwarder.rendezvous import CHANNEL, CONSOLE, LOCK, MEMBERSHIP, worker_path
from forwarder.unix_sockets import SOCKET_PATH_BYTES
from supervisor.base.paths import absolute

HIGHEST_PID = 4194304
"""The largest process id of Linux (PID_MAX_LIMIT), for the longest name of a worker's socket."""

EPOCH_STRIDE = 10**9
"""Workers that one supervisor can start: one a second for thirty years."""


class Predecessor(NamedTuple):
    """The supervisor that held this directory before and did not end cleanly."""

    pid: int
    epoch: int
    first_epoch: int


def default() -> str:
    """Return the default directory."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base) and os.path.isdir(base):
        return os.path.join(base, "bulkhead")
    return f"/tmp/bulkhead-{os.geteuid()}"


def running() -> list[str]:
    """Return the directories of this user in which a supervisor answers, as far as this namespace shows."""
    found = set()
    try:
        with open("/proc/net/unix", "rb") as file:
            paths = {
                line.split(b" ", 7)[-1].strip()
                for line in file
                if line.rstrip().endswith(b"/" + CONSOLE.encode())
            }
    except OSError:
        return []
    for path in map(os.fsdecode, paths):
        with suppress(OSError):
            if os.stat(path).st_uid == os.geteuid() and unix_sockets.is_live(path):
                found.add(os.path.dirname(path))
    return sorted(found)


def unreached(directory: str, error: OSError) -> str:
    """Return the error line of a command that cannot connect; it has the directories of other switches."""
    if why := _too_long(directory):
        return why
    if not isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"cannot reach a supervisor in {directory}: {error.strerror}"
    others = running()
    where = f" (running: {', '.join(others)})" if others else ""
    return f"no supervisor runs in {directory}; start one, or give its --runtime-dir{where}"


def holder(directory: str) -> int:
    """Return the process id in a directory's lock; 0: there is none."""
    try:
        with open(rendezvous.path(directory, LOCK), "rb") as file:
            return int(file.readline(32))
    except (OSError, ValueError):
        return 0


class RuntimeDir:
    """A runtime directory that this process holds, from construction to ``close``."""

    def __init__(self, path: str) -> None:
        """Make or take over the directory.

        Raises LocalError if it is not ours, in use, read-only, full, too long.
        """
        self.path = absolute(path)
        self.predecessor: Predecessor | None = None
        self._made = False
        self._lock = -1
        self._old_locks: list[int] = []
        """Deleted ones, which workers of that time still read."""
        if why := _too_long(self.path):
            raise LocalError(why)
        try:
            self._made = _make(self.path)
            self._lock = self._acquire()
            self.predecessor = self._read()
            if unix_sockets.is_live(self.file(CONSOLE)):
                raise LocalError(
                    f"a supervisor runs in {self.path} already, and its lock was deleted; "
                    "stop it, or choose another --runtime-dir"
                )
            self._write()
            self._remove_console()
        except LocalError:
            self._undo(keep_lock=self.predecessor is not None)
            raise
        except OSError as error:
            self._undo(keep_lock=self.predecessor is not None)
            raise LocalError(f"cannot use runtime directory {self.path}: {_advice(error)}") from None

    def file(self, name: str) -> str:
        """Return the path of a file in the directory."""
        return rendezvous.path(self.path, name)

    def mend(self) -> str:
        """Make the directory and the lock again if they were deleted; return what happened, or nothing.

        Workers go on with the file that they have open; the next ones open the new one. A lock that was
        emptied is signed again, for the next supervisor. Raises LocalError.
        """
        with suppress(OSError):
            found = os.fstat(self._lock)
            if os.path.samestat(found, os.stat(self.file(LOCK))):
                if found.st_size:
                    return ""
                self._sign()
                return f"{self.file(LOCK)} was emptied"
        deleted = self.path if not os.path.isdir(self.path) else self.file(LOCK)
        try:
            self._made = _make(self.path) or self._made
            self._old_locks.append(self._lock)
            self._lock = self._acquire()
            self._sign()
        except OSError as error:
            raise LocalError(f"{deleted} was deleted and cannot be made again: {_advice(error)}") from None
        return f"{deleted} was deleted"

    def close(self, *, keep_lock: bool = False) -> None:
        """Remove the files that were made here and give the directory up.

        ``keep_lock``: leave the text of the lock, which tells the next supervisor to take over.
        """
        if self._lock >= 0:
            self._remove_console()
            self._undo(keep_lock=keep_lock)

    def _acquire(self) -> int:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(self.file(LOCK), flags, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(lock, 32, 0).decode("ascii", "replace").split("\n")[0]
                os.close(lock)
                raise LocalError(
                    f"a supervisor runs in {self.path} already (pid {pid or 'unknown'}); "
                    "stop it, or choose another --runtime-dir"
                ) from None
            except OSError:
                os.close(lock)
                raise
            # Its last holder may have removed the file between our open and our lock.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(self.file(LOCK))):
                    return lock
            os.close(lock)

    def _read(self) -> Predecessor | None:
        words = os.pread(self._lock, 128, 0).split()
        if not words:
            return None
        try:
            return Predecessor(*map(int, words))
        except (ValueError, TypeError):
            # The predecessor died while it wrote; epochs from the clock are greater than all that it gave
            # out.
            return Predecessor(0, 0, time.time_ns())

    def _write(self) -> None:
        before = self.predecessor
        self.epoch = max(time.time_ns(), before.epoch + 1 if before else 0)
        self.first_epoch = before.first_epoch + EPOCH_STRIDE if before else 1
        self._sign()

    def _sign(self) -> None:
        """Write into the lock file which supervisor holds it."""
        text = f"{os.getpid()}\n{self.epoch}\n{self.first_epoch}\n".encode()
        if os.pwrite(self._lock, text, 0) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(self._lock, len(text))

    def _remove_console(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.file(CONSOLE))

    def _undo(self, *, keep_lock: bool = False) -> None:
        """Give up; ``keep_lock``: another supervisor may still take over from the predecessor."""
        if self._lock >= 0:
            if not keep_lock:
                with suppress(OSError):
                    os.unlink(self.file(LOCK))
            for lock in (self._lock, *self._old_locks):
                os.close(lock)
            self._lock = -1
            self._old_locks.clear()
        if self._made:
            with suppress(OSError):  # it holds files of others
                os.rmdir(self.path)
            self._made = False


def check(path: str) -> bool:
    """Whether the directory exists. Raises LocalError if it is not private, or cannot be made."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        above = os.path.dirname(path)
        if not os.access(above, os.W_OK | os.X_OK):
            number = errno.EACCES if os.path.isdir(above) else errno.ENOENT
            why = _advice(OSError(number, os.strerror(number)))
            raise LocalError(f"cannot use runtime directory {path}: {why}") from None
        return False
    if not stat.S_ISDIR(found.st_mode):
        raise LocalError(f"{path} is no directory; choose another --runtime-dir")
    if found.st_uid != os.geteuid():
        raise LocalError(
            f"{path} belongs to user {found.st_uid}, not to {os.geteuid()}; choose another --runtime-dir"
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise LocalError(f"{path} is open to others (mode {mode:o}); run `chmod 700 {path}`")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        why = _advice(OSError(errno.EROFS, os.strerror(errno.EROFS)))
        raise LocalError(f"cannot use runtime directory {path}: {why}")
    return True


def _too_long(path: str) -> str:
    """Return why no supervisor can have a directory with so long a path; empty if one can."""
    names = [worker_path(path, HIGHEST_PID, kind) for kind in (CHANNEL, MEMBERSHIP)]
    excess = max(len(os.fsencode(name)) for name in names) - SOCKET_PATH_BYTES
    why = f"{path} is too long by {excess} bytes for the sockets in it; choose a shorter --runtime-dir"
    return why if excess > 0 else ""


def _make(path: str) -> bool:
    """Make the directory if it is missing; return whether it was.

    Raises LocalError if it is not private, OSError.
    """
    made = False
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
        made = True
    check(path)
    return made


def _advice(error: OSError) -> str:
    advice = {
        errno.EROFS: "choose a writable --runtime-dir",
        errno.EACCES: "choose a writable --runtime-dir",
        errno.ENOSPC: "free some space, or choose another --runtime-dir",
        errno.EDQUOT: "free some space, or choose another --runtime-dir",
        errno.ENOENT: "make the directory above it first",
    }.get(error.errno or 0, "choose another --runtime-dir")
    return f"{(error.strerror or str(error)).lower()}; {advice}"

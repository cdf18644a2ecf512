"""Announce that the switch is ready: a line on stdout, a pid file, and systemd."""

import errno
import os
import socket
import stat
from contextlib import suppress

from forwarder.errors import LocalError
from supervisor.base import runtime_dir
from supervisor.base.paths import absolute

NOTIFY_S = 1.0
"""The switch waits so long for a service manager that does not read; it serves no VM meanwhile."""
LONGEST_PID = 16
"""Bytes of the longest pid file: seven digits, and blanks that another program may have added."""


class PidFile:
    """A file with our process id, from construction to ``close``.

    The file holds only the number, like gvproxy's, and appears by rename, so a reader never finds half a
    number. It replaces only an earlier pid file (a regular file with one number) whose process is no running
    switch. It never replaces another file, and never follows a link, which another user could have put into a
    shared directory (``/tmp``) to make us overwrite a file of ours.
    """

    def __init__(self, path: str) -> None:
        """Write the file. Raises LocalError; nothing is left behind then."""
        self._path = absolute(path)
        self._own = (-1, -1)
        draft = f"{self._path}.{os.getpid()}"
        try:
            _check_replaceable(self._path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(draft, flags, 0o644)
            try:
                os.write(fd, str(os.getpid()).encode())
                found = os.fstat(fd)
                os.rename(draft, self._path)
            except BaseException:
                os.unlink(draft)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._own = (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Remove the file, unless another one has replaced it."""
        with suppress(OSError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._own:
                os.unlink(self._path)


def check_pid_file(path: str) -> str:
    """Return the absolute path of a pid file that could be written. Raises LocalError."""
    path = absolute(path)
    try:
        _check_replaceable(path)
        os.stat(os.path.join(os.path.dirname(path), ""))  # says what is wrong with it
        if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def _unwritable(path: str, error: OSError) -> LocalError:
    why = "is a directory" if isinstance(error, IsADirectoryError) else error.strerror
    return LocalError(f"cannot write pid file {path}: {why}; choose another")


def _check_replaceable(path: str) -> None:
    """Raise LocalError if ``path`` exists and is not an earlier pid file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError
    if stat.S_ISLNK(found.st_mode):
        raise LocalError(f"pid file {path} is a link, which is never followed; remove it or choose another")
    if stat.S_ISREG(found.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            text = os.read(fd, LONGEST_PID + 1)
        finally:
            os.close(fd)
        if len(text) <= LONGEST_PID and (not text.strip() or text.strip().isdigit()):
            _check_outlived(path, int(text.strip() or 0))
            return
    raise LocalError(f"{path} exists and holds no process id; move it away, or choose another pid file")


def _check_outlived(path: str, pid: int) -> None:
    """Raise LocalError if a running switch of this user has that process id."""
    for directory in runtime_dir.running():
        if pid == runtime_dir.holder(directory):
            raise LocalError(
                f"pid file {path} is that of the switch in {directory} (pid {pid}); choose another"
            )


def tell_systemd(state: str) -> None:
    """Send ``state`` to systemd (sd_notify(3)); gives up if it reads nothing for NOTIFY_S."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(NOTIFY_S)
        sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)

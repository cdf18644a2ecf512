"""Bind unix sockets in the file system: mode 0600, over a dead socket, never over a live one or a file.

Theory of operation
-------------------
``bind`` gives a socket its path and returns the new ``SocketFile``. It replaces a socket whose owner is dead.
Any other file stays, and the caller gets one line that says what it is. ``SocketFile.remove`` removes the
file only if it is still the same one: it compares device and inode. The kernel keeps a bound socket's inode
for as long as the socket is open, so the number cannot have been given to another file meanwhile; therefore
remove first, close the socket afterwards.

The kernel is asked whether a socket file has a live owner, by connecting a *datagram* socket to it. A live
stream or seqpacket socket answers EPROTOTYPE. A live datagram socket is connected to, or answers EPERM when
it takes frames from one peer only. A dead one answers ECONNREFUSED. So the owner notices nothing. (A regular
file answers ECONNREFUSED, too, so the type is checked first.)

Example: a switch is killed and leaves ``q.sock``. The next one binds: EADDRINUSE, it is a socket, connecting
says ECONNREFUSED, so it is unlinked and bound again. Had the operator put a text file there, it would stay.

Single-threaded: the umask of the process is changed for the moment of binding.
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from typing import NamedTuple

from forwarder.errors import LocalError

SOCKET_PATH_BYTES = 107
"""Linux keeps the path of a unix socket in 108 bytes, the last of which ends it."""


class SocketFile(NamedTuple):
    """A path in the file system that a socket of this process is bound to."""

    path: str
    identity: tuple[int, int] | None
    """Device and inode; None if the file was gone already."""

    @classmethod
    def at(cls, path: str) -> "SocketFile":
        """Return the file that lies at ``path`` now."""
        try:
            found = os.lstat(path)
        except OSError:
            return cls(path, None)
        return cls(path, (found.st_dev, found.st_ino))

    def is_there(self) -> bool:
        """Whether the path still leads to this file; call it while the socket is open."""
        return self.identity is not None and SocketFile.at(self.path) == self

    def is_lost(self) -> bool:
        """Whether the file was deleted and its path can be bound: at most a dead socket lies there now."""
        if self.is_there():
            return False
        try:
            _check_stale(self.path)
        except FileNotFoundError:
            return True
        except (LocalError, OSError):
            return False
        return True

    def is_taken(self) -> bool:
        """Whether another file lies at the path, which is left alone."""
        return not self.is_there() and os.path.lexists(self.path)

    def remove(self) -> None:
        """Remove the file if it is still this one; call it before the socket is closed."""
        if self.is_there():
            with suppress(OSError):
                os.unlink(self.path)


def listen(path: str, kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, SocketFile]:
    """Return a socket that listens at ``path`` and does not block. Raises LocalError with what to do."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        file = bind(sock, path)
        sock.listen(socket.SOMAXCONN)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock, file


def bind(sock: socket.socket, path: str) -> SocketFile:
    """Bind ``sock`` to ``path``, mode 0600. Raises LocalError with what to do."""
    mask = os.umask(0o177)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            sock.bind(path)
    except OSError as error:
        raise LocalError(f"cannot listen on {path}: {_why(error, path)}") from None
    finally:
        os.umask(mask)
    return SocketFile.at(path)


def check_free(path: str) -> None:
    """Raise LocalError, with a remedy, if ``path`` could not be bound now; changes nothing."""
    folder = os.path.dirname(path) or "."
    try:
        if os.path.lexists(path):
            _check_stale(path)
        elif not os.access(folder, os.W_OK | os.X_OK):
            wrong = errno.EACCES if os.path.isdir(folder) else errno.ENOENT
            if wrong == errno.EACCES and os.statvfs(folder).f_flag & os.ST_RDONLY:
                wrong = errno.EROFS
            raise OSError(wrong, os.strerror(wrong))
    except OSError as error:
        raise LocalError(f"cannot listen on {path}: {_why(error, path)}") from None


def is_live(path: str) -> bool:
    """Whether a process has the socket at ``path`` open. Raises OSError if that cannot be found out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno in (errno.EPROTOTYPE, errno.EPERM, errno.EAGAIN):
                return True
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return False
            raise
    return True


def _remove_stale(path: str) -> None:
    _check_stale(path)
    os.unlink(path)


def _check_stale(path: str) -> None:
    """Raise LocalError unless a socket without an owner is at ``path``."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise LocalError(f"{path} exists and is not a socket; move it away, or listen elsewhere")
    if is_live(path):
        raise LocalError(f"address in use: another process listens on {path}; stop it, or listen elsewhere")


def _why(error: OSError, path: str) -> str:
    folder = os.path.dirname(path) or "."
    return {
        errno.ENOENT: f"the directory {folder} does not exist; create it",
        errno.ENOTDIR: f"{folder} is not a directory; choose another path",
        errno.EACCES: f"no right to make a file in {folder}; choose another directory",
        errno.EROFS: f"{folder} is on a read-only file system; choose another directory",
        errno.ENOSPC: f"no space left in {folder}; free some, or choose another directory",
    }.get(error.errno or 0, error.strerror or str(error))

"""Unix sockets in the file system: bound with mode 0600, over what a dead owner left, never over a live one.

Whether a socket file has a live owner is asked of the kernel by connecting a *datagram* socket to it. A
live stream or seqpacket socket answers EPROTOTYPE, a live datagram socket is connected to (or says EPERM,
when it takes frames from one peer only), a dead one answers ECONNREFUSED. So its owner notices nothing.
"""

import ctypes
import errno
import os
import socket
import stat
from contextlib import suppress

from forwarder.errors import LocalError

SOCKET_PATH_BYTES = 107
"""Linux keeps the path of a unix socket in 108 bytes, the last of which ends it."""


def is_live(path: str) -> bool:
    """Whether some process has the socket at ``path`` open. Raises OSError if there is no telling."""
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


def bind(sock: socket.socket, path: str) -> None:
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
        raise LocalError(f"cannot listen on {path}: {error.strerror}") from None
    finally:
        os.umask(mask)


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise LocalError(f"{path} exists and is no socket; move it away, or listen elsewhere")
    if is_live(path):
        raise LocalError(f"address in use: another process listens on {path}; stop it, or listen elsewhere")
    os.unlink(path)


def inode(path: str | bytes) -> tuple[int, int] | None:
    """Return what tells a file from a later one of the same name; None if there is none to be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def unlink_own(path: str, own: tuple[int, int] | None) -> None:
    """Remove ``path`` if it is still the file that was made here, and not a later one of that name."""
    if own is not None and inode(path) == own:
        with suppress(OSError):
            os.unlink(path)


def dissolve(sock: socket.socket) -> None:
    """Take the peer from a connected datagram socket, so that any sender can reach it again.

    Python's ``connect`` cannot say AF_UNSPEC to a unix socket. What the old peer had sent and nobody has
    read goes with it (unix(7) says so of reconnecting); an error it left behind is cleared.
    """
    _connect(sock.fileno(), ctypes.byref(ctypes.c_uint16(socket.AF_UNSPEC)), 2)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


_connect = ctypes.CDLL(None, use_errno=True).connect
_connect.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)

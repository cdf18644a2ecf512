"""Take the peer from a connected datagram socket of the file system, which Python's ``connect`` cannot."""

import ctypes
import socket

_connect = ctypes.CDLL(None, use_errno=True).connect
_connect.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)


def dissolve(sock: socket.socket) -> None:
    """Take the peer from ``sock``, so that any sender can reach it again.

    Python's ``connect`` cannot pass AF_UNSPEC to a unix socket. Unread messages of the old peer are dropped,
    as unix(7) says of reconnecting; a pending error is cleared.
    """
    _connect(sock.fileno(), ctypes.byref(ctypes.c_uint16(socket.AF_UNSPEC)), 2)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

"""Take the peer from a connected datagram socket of the file system, which Python's ``connect`` cannot."""

import socket
from contextlib import suppress

from forwarder import _core


def dissolve(sock: socket.socket) -> None:
    """Take the peer from ``sock``, so that any sender can reach it again.

    Python's ``connect`` cannot pass AF_UNSPEC to a unix socket. Unread messages of the old peer are dropped,
    as unix(7) says of reconnecting; a pending error is cleared.
    """
    with suppress(OSError):
        _core.dissolve(sock.fileno())
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

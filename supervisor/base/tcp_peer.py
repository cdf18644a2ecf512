"""The other end of a TCP connection on this machine, by sock_diag(7): its user, and its unread bytes.

A TCP port on loopback has no file and no mode: every user of the machine can connect to it. A unix socket has
SO_PEERCRED, and says how much its other end has not read. For TCP the kernel is asked by the connection's two
addresses, as ``ss -e`` does. It searches this network namespace, which contains every peer on loopback.

A socket that its process has closed belongs to no user; the kernel shows user 0. So the answer counts only
while the other end is connected both ways. Otherwise a client that has sent frames and closed would pass as
root.

linux/sock_diag.h and linux/inet_diag.h have the layouts.
"""

import os
import socket
import struct
from typing import NamedTuple

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_ID = struct.Struct("!HH16s16s")
_REST = struct.Struct("=III")
_ANSWER = struct.Struct("=BBBB48xIIIII")
_EVERY_STATE = 0xFFFFFFFF
_NO_COOKIE = 0xFFFFFFFF
_ESTABLISHED = 1


class Peer(NamedTuple):
    """The socket at the other end."""

    user: int
    """Of the process that has it."""
    unread: int
    """Bytes that it has received, and its process has not read."""

    @property
    def is_ours(self) -> bool:
        """Whether our own user or root has it."""
        return self.user in (os.geteuid(), 0)


def peer(connection: socket.socket) -> Peer | None:
    """Return the other end; None if it is not on this machine or not connected (any more).

    Raises OSError: the kernel cannot be asked.
    """
    here, there = connection.getsockname(), connection.getpeername()
    family = connection.family
    # Ask about the other end's socket: its local address is our remote one.
    ends = [socket.inet_pton(family, address[0]).ljust(16, b"\0") for address in (there, here)]
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _EVERY_STATE)
    body += _ID.pack(there[1], here[1], *ends) + _REST.pack(0, _NO_COOKIE, _NO_COOKIE)
    message = _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(message)
        answer = kernel.recv(4096)
    kind = _HEADER.unpack_from(answer)[1]
    if kind != SOCK_DIAG_BY_FAMILY or len(answer) < _HEADER.size + _ANSWER.size:
        return None  # NLMSG_ERROR: the socket has gone meanwhile
    _family, state, _timer, _retransmits, _expires, unread, _unsent, user, _inode = _ANSWER.unpack_from(
        answer, _HEADER.size
    )
    return Peer(user, unread) if state == _ESTABLISHED else None

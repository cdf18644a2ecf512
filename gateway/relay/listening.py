"""Make the listening sockets of forwards, with errors that a person can act on.

``listen`` returns the socket of a forward, or raises one line with cause and remedy. A unix socket is for its
user only and comes from ``forwarder.unix_sockets``, which removes only its own files. ``forwarder.acceptor``
accepts the connections.
"""

import errno
import socket
from typing import NamedTuple

from forwarder import unix_sockets
from forwarder.errors import LocalError
from forwarder.unix_sockets import SocketFile
from gateway.relay.forwards import Forward
from gateway.relay.socket_options import tune

BACKLOG = 4096
"""Connections that the kernel completes before they are accepted (it cuts this to net.core.somaxconn)."""

_ADVICE = {
    errno.EADDRINUSE: "another program listens there; end it or choose another port",
    errno.EADDRNOTAVAIL: "this host does not have that address; choose one of its own, or 0.0.0.0 for all",
    errno.EACCES: "not allowed; choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start",
}


class Listening(NamedTuple):
    """The listening socket of a forward, and its file if it has one."""

    sock: socket.socket
    file: SocketFile | None = None

    def close(self) -> None:
        """Remove the file, if it is still ours, and close the socket."""
        if self.file is not None:
            self.file.remove()
        self.sock.close()


def listen(forward: Forward) -> tuple[Listening, Forward]:
    """Return the socket of ``forward``, and the forward with its real port.

    Raises LocalError with the reason if it cannot listen.
    """
    if forward.kind == "unix":
        try:
            return Listening(*unix_sockets.listen(forward.path)), forward
        except LocalError as error:
            raise LocalError(f"{forward.near}: {error}") from None
    sock: socket.socket | None = None
    try:
        family = socket.AF_INET if forward.host.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM if forward.kind == "tcp" else socket.SOCK_DGRAM)
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if forward.kind == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(forward.host), forward.port))
        if forward.kind == "tcp":
            tune(sock, nearby=forward.host.is_loopback)
            sock.listen(BACKLOG)
        return Listening(sock), forward._replace(port=sock.getsockname()[1])
    except OSError as error:
        if sock is not None:
            sock.close()
        advice = _ADVICE.get(error.errno or 0, error.strerror)
        raise LocalError(f"cannot listen at {forward.near}: {advice}") from None

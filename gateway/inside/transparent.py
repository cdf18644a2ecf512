"""The transparent listeners: they accept guests' connections to any address outside.

The packet filter (``nft``) hands the connections to them. The local address of an accepted socket is the
address that the guest asked for. There is one listener for each IP version.
"""

import socket

from forwarder.tcp_options import tune
from gateway.inside.nft import TCP_PORT

BACKLOG = 4096
"""Connections that may wait for accept: the kernel's maximum, and no fewer than the relay has dials."""

_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75


def listen() -> dict[str, socket.socket]:
    """Return "tcp4" and "tcp6", made in the caller's network namespace. Raises OSError."""
    made = {
        "tcp4": socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "tcp6": socket.socket(socket.AF_INET6, socket.SOCK_STREAM),
    }
    made["tcp4"].setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
    made["tcp6"].setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    made["tcp4"].bind(("127.0.0.1", TCP_PORT))
    made["tcp6"].bind(("::1", TCP_PORT))
    for sock in made.values():
        tune(sock, nearby=True)
        sock.setblocking(False)
        sock.listen(BACKLOG)
    return made

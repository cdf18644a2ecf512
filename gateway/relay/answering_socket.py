"""A datagram socket that answers from the address that a client has asked (RFC 1122 4.1.3.5).

A socket that is bound to every address of a host would answer from the address that the route prefers, and a
connected client drops such an answer. So each datagram is received with its destination address, and the
answer is sent from that address (IP_PKTINFO of ip(7), IPV6_PKTINFO of ipv6(7)). A socket that is bound to one
address needs none of this. What it receives, the core reads (``forwarder._core.Datagrams.read``).
"""

import socket
import struct
from ipaddress import ip_address
from typing import Any

_IP_PKTINFO = 8
_INFO4 = struct.Struct("=I4s4s")
_INFO6 = struct.Struct("=16sI")

Local = bytes
"""The host's address that was asked; empty if the socket has only one."""


class AnsweringSocket:
    """The socket; its owner binds and closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_ipv6 = sock.family == socket.AF_INET6
        if not ip_address(sock.getsockname()[0]).is_unspecified:
            return
        if self._is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def send(self, data: bytes, client: Any, local: Local) -> None:
        """Send a datagram from ``local``. Raises OSError."""
        if not local:
            self._sock.sendto(data, client)
        elif self._is_ipv6:
            control = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _INFO6.pack(local, 0))
            self._sock.sendmsg([data], [control], 0, client)
        else:
            control = (socket.IPPROTO_IP, _IP_PKTINFO, _INFO4.pack(0, local, bytes(4)))
            self._sock.sendmsg([data], [control], 0, client)

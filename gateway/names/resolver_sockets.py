"""The sockets of one question at one resolver: a datagram, or a message of a TCP connection."""

import socket
from ipaddress import ip_address
from typing import Protocol

from forwarder.socket_address import SocketAddress
from gateway.poller import READ, WRITE

LONGEST = 65535


class ResolverSocket(Protocol):
    """One question at one resolver; it does not block."""

    sock: socket.socket

    @property
    def events(self) -> int:
        """The events to wait for."""

    def send(self) -> None:
        """Ask, perhaps again. Raises OSError."""

    def ready(self) -> bytes | None:
        """Return a message that has come, or None. Raises OSError: there will be none."""


class DatagramSocket:
    """The question as a datagram."""

    events = READ

    def __init__(self, server: SocketAddress, data: bytes) -> None:
        """Connect; nothing is sent yet. Raises OSError."""
        self._data = data
        self.sock = _socket(server, socket.SOCK_DGRAM)
        try:
            self.sock.connect(server)
        except OSError:
            self.sock.close()
            raise

    def send(self) -> None:
        """Ask, perhaps again. Raises OSError."""
        self.sock.send(self._data)

    def ready(self) -> bytes | None:
        """Return a datagram that has come, or None. Raises OSError: the resolver is not reachable."""
        try:
            return self.sock.recv(LONGEST)
        except BlockingIOError:
            return None


class StreamSocket:
    """The question as the only message of a connection."""

    def __init__(self, server: SocketAddress, data: bytes) -> None:
        """Begin to connect. Raises OSError."""
        self._out = len(data).to_bytes(2, "big") + data
        self._in = b""
        self.sock = _socket(server, socket.SOCK_STREAM)
        try:
            self.sock.connect(server)
        except BlockingIOError:
            return
        except OSError:
            self.sock.close()
            raise

    @property
    def events(self) -> int:
        """Writable, too, until all has been sent."""
        return READ | WRITE if self._out else READ

    def send(self) -> None:
        """Send the bytes that the kernel has not taken yet; at first the socket is not connected."""
        try:
            self._out = self._out[self.sock.send(self._out) :] if self._out else b""
        except BlockingIOError:
            return

    def ready(self) -> bytes | None:
        """Return the message when all of it has come. Raises OSError: there will be none."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "no connection")
        self.send()
        try:
            more = self.sock.recv(LONGEST + 2)
        except BlockingIOError:
            return None
        if not more:
            raise ConnectionResetError
        self._in += more
        length = int.from_bytes(self._in[:2], "big")
        return self._in[2 : 2 + length] if 2 + length <= len(self._in) else None


def _socket(server: SocketAddress, kind: int) -> socket.socket:
    version = ip_address(server[0]).version
    return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind | socket.SOCK_NONBLOCK)

"""Sockets at which the gateway listens on the host, made for it with errors that a person can act on.

Theory of operation. The gateway's process is in a cell: it can neither name a file nor listen anywhere. So it
asks for each listener by what a forward says (``Place``), and gets the socket. A unix socket is for its owner
alone and comes from ``forwarder.unix_sockets``, which removes nothing but what it made; this side keeps it as
well, to know its file when it is to be removed. All others are the gateway's alone.

Bounds: ``MOST`` listeners, so that a gateway that a guest has taken over cannot take more of the host's ports
than it could have forwards. Unix sockets are made only where an operator could have wanted them: that is
what ``may_name_files`` says.

    listen 3 tcp 127.0.0.1 8080     the socket, and 8080
    listen 4 unix /run/user/web     the socket, and 0; the file is removed with it
    unlisten 4

A unix socket whose file was deleted cannot get it back. It is given up, and the gateway asks for another one.
"""

import errno
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from forwarder import unix_sockets
from forwarder.errors import LocalError, PeerError
from forwarder.tcp_options import tune
from forwarder.unix_sockets import SocketFile

BACKLOG = 4096
"""Connections that the kernel completes before they are accepted (it cuts this to net.core.somaxconn)."""

MOST = 1025
"""As many forwards as there can be, and the HTTP API."""

_ADVICE = {
    errno.EADDRINUSE: "another program listens there; end it or choose another port",
    errno.EADDRNOTAVAIL: "this host does not have that address; choose one of its own, or 0.0.0.0 for all",
    errno.EACCES: "not allowed; choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start",
}


class Place(NamedTuple):
    """Where to listen. ``host`` and ``port`` are for tcp and udp, ``path`` for unix."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"

    @classmethod
    def read(cls, arguments: Mapping[str, object]) -> "Place":
        """Return what a message says. Raises PeerError."""
        match arguments:
            case {"kind": "unix", "path": str(path)} if path.startswith("/") and "\0" not in path:
                return cls("unix", path=path)
            case {"kind": "tcp" | "udp" as kind, "host": str(host), "port": int(port)} if 0 <= port < 65536:
                try:
                    return cls(str(kind), str(ip_address(host)), port)
                except ValueError:
                    pass
        raise PeerError("a place to listen at that is none")


class Listening(NamedTuple):
    """A socket that listens, and its file if it has one."""

    sock: socket.socket
    file: SocketFile | None = None

    def close(self) -> None:
        """Remove the file, if it is still ours, and close the socket."""
        if self.file is not None:
            self.file.remove()
        self.sock.close()


class Listenings:
    """What one gateway listens at, by the numbers that it gave."""

    def __init__(self, may_name_files: Callable[[str], bool]) -> None:
        """``may_name_files``: whether an operator may have asked for a unix socket at that path."""
        self._may_name_files = may_name_files
        self._made: dict[int, SocketFile | None] = {}
        self._kept: dict[int, socket.socket] = {}

    def open(self, number: int, place: Place) -> tuple[socket.socket, int]:
        """Return the socket and its port; the caller ``hand``s it over or closes it. Raises LocalError."""
        if number in self._made or len(self._made) >= MOST:
            raise LocalError(f"cannot listen at {place}: there are {MOST} listeners already")
        if place.kind == "unix" and not self._may_name_files(place.path):
            raise LocalError(f"cannot listen at {place}: no operator has asked for it")
        listening, port = listen(place)
        self._made[number] = listening.file
        if listening.file is not None:
            self._kept[number] = listening.sock.dup()
        return listening.sock, port

    def paths(self) -> list[str]:
        """Return the paths of the unix sockets."""
        return [file.path for file in self.files()]

    def files(self) -> list[SocketFile]:
        """Return the files of the unix sockets."""
        return [file for file in self._made.values() if file is not None]

    def lost(self) -> list[tuple[int, str]]:
        """Give up the unix sockets whose files were deleted; return their numbers and paths."""
        found = [
            (number, file.path) for number, file in self._made.items() if file is not None and file.is_lost()
        ]
        for number, _ in found:
            self.close(number)
        return found

    def close(self, number: int) -> None:
        """Remove the file of a listener, if it has one; the socket is the gateway's to close."""
        file, kept = self._made.pop(number, None), self._kept.pop(number, None)
        if file is not None:
            file.remove()
        if kept is not None:
            kept.close()

    def close_all(self) -> None:
        """Remove the files of all."""
        for number in list(self._made):
            self.close(number)


def check(place: Place) -> None:
    """Raise LocalError, which says why, if nothing could listen at ``place`` now; changes nothing."""
    if place.kind != "unix":
        listen(place)[0].close()
        return
    try:
        unix_sockets.check_free(place.path)
    except LocalError as error:
        raise LocalError(f"{place}: {error}") from None


def listen(place: Place) -> tuple[Listening, int]:
    """Return a socket that listens at ``place``, and the port that it really has (unix: 0).

    Raises LocalError: it cannot be had, and why.
    """
    if place.kind == "unix":
        try:
            return Listening(*unix_sockets.listen(place.path)), 0
        except LocalError as error:
            raise LocalError(f"{place}: {error}") from None
    sock: socket.socket | None = None
    try:
        host = ip_address(place.host)
        family = socket.AF_INET if host.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM if place.kind == "tcp" else socket.SOCK_DGRAM)
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if place.kind == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((place.host, place.port))
        if place.kind == "tcp":
            tune(sock, nearby=host.is_loopback)
            sock.listen(BACKLOG)
        return Listening(sock), int(sock.getsockname()[1])
    except OSError as error:
        if sock is not None:
            sock.close()
        advice = _ADVICE.get(error.errno or 0, error.strerror)
        raise LocalError(f"cannot listen at {place}: {advice}") from None

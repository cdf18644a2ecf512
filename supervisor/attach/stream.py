"""Listeners that VMs connect to, many to each: ``qemu`` (unix, tcp) and ``bess`` (unixpacket).

Each accepted connection becomes a port. An address that is pinned belongs to one port, so a listener that
pins addresses has one VM at a time: the next one waits in the kernel's queue until the port of the last is
gone. That matters to a VM that reconnects: it may be quicker than the end of its old port, and must not be
refused.

When there are no descriptors left, the VM is refused with one line at most once a second, and the others go
on. A connection that waits while there is no descriptor to accept it with would make the loop spin, so one is
kept in reserve: it is closed, the connection accepted and closed, and the reserve taken again.
"""

import errno
import os
import socket

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import PortRecord
from supervisor.attach.addresses import SOCKET_TYPES, Listen, PortOptions
from supervisor.attach.listener_common import VmHandler, ask_for_buffers
from supervisor.base import unix_sockets
from supervisor.base.logs import Throttle, log

AT_ONCE = 64
"""Connections taken in one go."""
KEEPALIVE_S = (30, 10, 3)
"""A peer over TCP that vanished without a word is noticed after the first, and the third times the second."""


class StreamListener:
    """One listening socket."""

    descriptors = 2
    """That it has open itself: the socket and the reserve."""

    def __init__(self, loop: Loop, address: Listen, settings: PortOptions, owner: VmHandler) -> None:
        """Listen. Raises LocalError."""
        self._loop = loop
        self.transport = address.transport
        self.settings = settings
        self.record: PortRecord | None = None
        """The port of its VM, where it takes one at a time."""
        self._owner = owner
        self._throttle = Throttle()
        self._path = address.path
        self._socket = _tcp(address) if address.host else _unix(address)
        self._own = unix_sockets.inode(address.path) if address.path else None
        self.url = address.url
        if address.host:
            host, port = self._socket.getsockname()[:2]
            self.url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        loop.watch(self._socket.fileno(), self._on_readable)

    def close(self) -> None:
        """Stop listening; VMs that are connected stay."""
        self._loop.unwatch(self._socket.fileno())
        unix_sockets.unlink_own(self._path, self._own)
        self._socket.close()
        os.close(self._reserve)

    def released(self) -> None:
        """Take the next VM: the port of the last one is gone."""
        self.record = None
        self._loop.watch(self._socket.fileno(), self._on_readable)

    def _on_readable(self, _: int) -> None:
        for _attempt in range(AT_ONCE):
            if self.record is not None:
                log.info(
                    "%s: a VM waits for the end of port %d, which has its addresses",
                    self.url,
                    self.record.port,
                )
                self._loop.unwatch(self._socket.fileno())
                return
            try:
                connection, _peer = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._refuse_by_reserve()
                elif error.errno != errno.ECONNABORTED:
                    self._throttle.warning("accept", f"{self.url}: cannot accept: {error.strerror}")
                    return
                continue
            self._on_connection(connection)
            if self.record is not None:
                return  # whether another VM waits already is for the next turn to see

    def _on_connection(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            ask_for_buffers(connection)
            if connection.family != socket.AF_UNIX:
                _tune_tcp(connection)
            record = self._owner.arrive(self.transport, connection.fileno(), self.settings, self.url)
        except LocalError as error:
            self._throttle.warning("refused", f"{self.url}: a VM was refused: {error}")
            connection.close()
        except OSError:
            connection.close()  # it has gone already
        else:
            connection.detach()
            if self.settings.policy.pinned:
                self.record = record

    def _refuse_by_reserve(self) -> None:
        os.close(self._reserve)
        try:
            connection, _ = self._socket.accept()
            connection.close()
        except OSError:
            pass
        finally:
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._throttle.warning(
            "refused", f"{self.url}: a VM was refused: descriptor limit reached; raise it (ulimit -n)"
        )


def _unix(address: Listen) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, SOCKET_TYPES[address.transport])
    try:
        unix_sockets.bind(sock, address.path)
        sock.listen(socket.SOMAXCONN)
    except LocalError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _tcp(address: Listen) -> socket.socket:
    host = "127.0.0.1" if address.host == "localhost" else address.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        socket.inet_pton(family, host)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, address.port))
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        sock.close()
        why = {
            errno.EADDRINUSE: "address in use; stop who listens there, or choose another port",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }.get(error.errno or 0)
        if why is None:
            why = error.strerror or f"{host} is no IP address; give one instead of a name"
        raise LocalError(f"cannot listen on {address.url}: {why}") from None
    sock.setblocking(False)
    return sock


def _tune_tcp(connection: socket.socket) -> None:
    idle, interval, probes = KEEPALIVE_S
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)

"""The listeners for many VMs each: ``qemu`` (unix, tcp) and ``bess`` (unixpacket).

Each accepted connection becomes a port. A pinned address belongs to one port, so a listener that pins
addresses has one VM at a time: the next one waits in the kernel's queue until the last VM's port is gone. So
a VM that reconnects before the end of its old port is not refused. The port may also be one that a worker
brought back after the supervisor was replaced (``go_on_with``).

A TCP port on loopback accepts connections from processes of our own user and of root only, unless the
operator has set ``allow=any``. ``protocol_guard`` handles clients of another protocol.

A VM without room (``check_room``) is refused; at most one line a second says so. If the process has no
descriptor left to accept with, the VM waits (``forwarder.acceptor``).
"""

import errno
import socket
import time
from ipaddress import IPv6Address, ip_address

from forwarder import unix_sockets
from forwarder.acceptor import Acceptor, Pauses
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import PortId
from forwarder.unix_sockets import SocketFile
from supervisor.attach.addresses import ANY_USER, SOCKET_TYPES, Listen, PortOptions
from supervisor.attach.listener_common import VmHandler, ask_for_buffers, warn_refused
from supervisor.attach.protocol_guard import (
    PROBATIONERS,
    PROTOCOLS,
    VAIN_S,
    Probation,
    ProtocolGuard,
    looks_like,
)
from supervisor.base import tcp_peer
from supervisor.base.logs import Throttle, log
from supervisor.base.mending import mended

KEEPALIVE_S = (30, 10, 3)
"""TCP keepalive: idle time, interval, count. A vanished peer is noticed after the first, plus the third times
the second."""
YOUNG_S = 10.0


class StreamListener:
    """One listening socket."""

    descriptors = 1 + PROBATIONERS
    """Descriptors that it may have open: the socket, and connections on probation."""

    def __init__(
        self, loop: Loop, pauses: Pauses, address: Listen, settings: PortOptions, owner: VmHandler
    ) -> None:
        """Listen. Raises LocalError."""
        self._loop = loop
        self.transport = address.transport
        self.settings = settings
        self.port: PortId | None = None
        """The port of its VM, if it takes one VM at a time."""
        self._owner = owner
        self._throttle = Throttle()
        self._guard = ProtocolGuard()
        self._protocol = PROTOCOLS[address.transport]
        self._probation = Probation(loop, self._protocol, self._attach, self._on_another_protocol)
        self._young: dict[PortId, float] = {}
        """Young ports, and when they are no longer young."""
        self._own_user_only = False
        self.url = address.url
        self._file: SocketFile | None = None
        if address.path:
            self._socket, self._file = unix_sockets.listen(address.path, SOCKET_TYPES[address.transport])
        else:
            self._socket = bind_tcp(address)
            self._socket.listen(socket.SOMAXCONN)
            host, port = self._socket.getsockname()[:2]
            self.url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
            self.url += ANY_USER if address.any_user else ""
            self._own_user_only = _is_loopback(host) and not address.any_user
        self._acceptor = Acceptor(loop, self._socket, self._on_connection, pauses, self._starved)

    def close(self) -> None:
        """Stop listening; VMs that are connected stay."""
        self._acceptor.close()
        self._probation.close()
        if self._file is not None:
            self._file.remove()
        self._socket.close()

    def mend(self) -> SocketFile | None:
        """Listen anew if the socket's file was deleted; return the file; None: it has none."""
        if self._file is not None:
            self._file = mended(self.url, self._file, self._listen_again, self._throttle)
        return self._file

    def go_on_with(self, port: PortId) -> None:
        """Accept the next VM only when ``port``, which has the pinned addresses, is gone."""
        self.port = port
        self._acceptor.hold()

    def released(self) -> None:
        """Accept the next VM, after the pause if there is one: the last VM's port is gone."""
        self.port = None
        pause = self._guard.pause_left(time.monotonic())
        if pause:
            self._acceptor.pause(pause)
        else:
            self._acceptor.resume()

    def ended(self, port: PortId, reason: str) -> None:
        """Note why a port has ended. Some reasons mean that the VM's next link will end in the same way."""
        young_for = self._young.pop(port, 0.0) - time.monotonic()
        if young_for > 0 and reason.startswith(self._protocol.bad_ends):
            self._on_another_protocol(b"")
        elif young_for > YOUNG_S - VAIN_S and reason.startswith(self._protocol.vain_ends):
            self._pauses_after(f"{reason}, again and again")

    def tick(self, now: float) -> None:
        """Admit VMs that have sent nothing on probation."""
        self._probation.tick(now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._probation.deadline()

    def _listen_again(self) -> SocketFile:
        assert self._file is not None
        before, (self._socket, file) = self._socket, unix_sockets.listen(self._file.path, self._socket.type)
        self._acceptor.move_to(self._socket)
        before.close()
        return file

    def _on_connection(self, connection: socket.socket) -> None:
        if self._own_user_only and not self._is_ours(connection):
            connection.close()
        elif self._guard.is_wary(time.monotonic()):
            self._probation.add(connection)
        else:
            self._attach(connection)

    def _is_ours(self, connection: socket.socket) -> bool:
        try:
            peer = tcp_peer.peer(connection)
        except OSError as error:
            why = f"{self.url}: cannot find the user of a connection: {error.strerror}"
            self._throttle.warning("owner", why)
            return False
        if peer is not None and peer.is_ours:
            return True
        if peer is not None:
            advice = f"put {ANY_USER} behind the address to accept every user of this machine"
            self._throttle.warning("stranger", f"{self.url}: user {peer.user} was refused; {advice}")
        return False

    def _on_another_protocol(self, start: bytes) -> None:
        if not self._pauses_after(self._protocol.is_not_spoken("clients speak", start)) and start:
            why = f"it does not speak {self._protocol.name}; it looks like {looks_like(start)}"
            warn_refused(self._throttle, self.url, "a VM", why)

    def _pauses_after(self, what: str) -> bool:
        """Note one more such end; pause and say ``what`` happens if there were too many."""
        pause = self._guard.bad(time.monotonic())
        if pause:
            log.warning("%s: %s. No connection is taken for %g s", self.url, what, pause)
            if self.port is None:  # or it is held, and pauses for the rest when the port is gone
                self._acceptor.pause(pause)
        return pause > 0

    def _attach(self, connection: socket.socket) -> None:
        try:
            ask_for_buffers(connection)
            if connection.family != socket.AF_UNIX:
                _tune_tcp(connection)
            record = self._owner.arrive(self.transport, connection.fileno(), self.settings, self.url)
        except LocalError as error:
            warn_refused(self._throttle, self.url, "a VM", error)
            connection.close()
        except OSError:
            connection.close()  # the client has gone already
        else:
            connection.detach()
            now = time.monotonic()
            self._young = {port: until for port, until in self._young.items() if until > now}
            self._young[record.id] = now + YOUNG_S
            if self.settings.policy.pinned:
                self.go_on_with(record.id)

    def _starved(self, why: str) -> None:
        self._throttle.warning(
            "starved", f"{self.url}: a VM waits to be accepted: {why}; raise the descriptor limit (ulimit -n)"
        )


def bind_tcp(address: Listen) -> socket.socket:
    """Return a socket that is bound to an address. Raises LocalError with what to do."""
    host = "127.0.0.1" if address.host == "localhost" else address.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        socket.inet_pton(family, host)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, address.port))
    except OSError as error:
        sock.close()
        why = {
            errno.EADDRINUSE: "address in use; stop the process that listens there, or choose another port",
            errno.EADDRNOTAVAIL: "this machine does not have that address; choose one of its own, or 0.0.0.0",
            errno.EACCES: "not allowed; choose a port from 1024 on",
        }.get(error.errno or 0)
        if why is None:
            why = error.strerror or f"{host} is no IP address; give one instead of a name"
        raise LocalError(f"cannot listen on {address.url}: {why}") from None
    sock.setblocking(False)
    return sock


def _is_loopback(host: str) -> bool:
    address = ip_address(host)
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_loopback


def _tune_tcp(connection: socket.socket) -> None:
    idle, interval, probes = KEEPALIVE_S
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)

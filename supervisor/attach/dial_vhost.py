"""A vhost-user port whose VM listens: dial its socket, again and again until it accepts.

Theory of operation. QEMU with ``server=on`` binds the socket and waits (OVS calls this client mode). The VM
may start after the switch, go, and come again at the same path. So the path is dialled until a VM accepts.
When its port is gone, dialling begins again. One path, one VM. The pauses between dials grow if the process
at the path speaks another protocol, or the VM ends each link in vain (``protocol_guard``).

     state       left by                 then
     waiting     ``due`` passes          dial: connected, or waiting for REDIAL_S
     connected   the port is released    waiting, due REDIAL_S after the last dial: at once, as a rule
"""

import errno
import socket
import time

from forwarder.errors import LocalError
from forwarder.names import PortId, PortRecord
from supervisor.attach.addresses import Listen, PortOptions
from supervisor.attach.listener_common import VmHandler, warn_refused
from supervisor.attach.protocol_guard import PROTOCOLS, VAIN_S, ProtocolGuard
from supervisor.base.logs import Throttle, log

REDIAL_S = 0.5
"""A VM that starts waits at most this long; a try costs a system call or two."""

ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN})
"""No process listens yet, or its queue is full."""


PROTOCOL = PROTOCOLS["vhost"]


class VhostDialer:
    """One path to dial."""

    transport = "vhost"
    descriptors = 0
    """Descriptors that it has open: none, since the connection belongs to its port."""

    def __init__(self, address: Listen, settings: PortOptions, owner: VmHandler) -> None:
        """Begin to dial at the next ``tick``."""
        self.url = address.url
        self.settings = settings
        self.port: PortId | None = None
        """The port of its VM, if it has one."""
        self.unclaimed = False
        """Whether a worker brought its port and it has not been opened again yet."""
        self._path = address.path
        self._owner = owner
        self._due = 0.0
        self._dialled = float("-inf")
        self._throttle = Throttle()
        self._guard = ProtocolGuard()

    @classmethod
    def adopted(cls, address: Listen, record: PortRecord, owner: VmHandler) -> "VhostDialer":
        """Go on with a connection that a worker has kept since a supervisor died."""
        dialer = cls(address, PortOptions(None, record.policy), owner)
        dialer.port = record.id
        dialer.unclaimed = True
        return dialer

    def close(self) -> None:
        """Stop dialling; a connected VM stays."""

    def released(self) -> None:
        """Dial again: the port is gone."""
        self.port = None

    def ended(self, port: PortId, reason: str) -> None:
        """Note why a port has ended. Some reasons mean that the next link will end in the same way."""
        now = time.monotonic()
        if port != self.port:
            return
        if reason.startswith(PROTOCOL.bad_ends):
            self._pauses_after(PROTOCOL.is_not_spoken("the process there speaks"), now)
        elif now - self._dialled < VAIN_S and reason.startswith(PROTOCOL.vain_ends):
            self._pauses_after(f"{reason}, again and again", now)

    def tick(self, now: float) -> None:
        """Dial, if it is due."""
        if self.port is None and now >= self._due:
            self._dialled, self._due = now, now + REDIAL_S
            self._dial()

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._due if self.port is None else float("inf")

    def _pauses_after(self, what: str, now: float) -> None:
        pause = self._guard.bad(now)
        if pause:
            self._due = now + pause
            log.warning("%s: %s. It is dialled again in %g s", self.url, what, pause)

    def _dial(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
            self.port = self._owner.arrive(self.transport, sock.fileno(), self.settings, self.url).id
        except OSError as error:
            if error.errno not in ABSENT:
                self._throttle.warning("dial", f"{self.url}: cannot be dialled: {error.strerror}")
            sock.close()
        except LocalError as error:
            warn_refused(self._throttle, self.url, "its VM", error, "dial")
            sock.close()
        else:
            sock.detach()
            log.debug("%s: dialled", self.url)

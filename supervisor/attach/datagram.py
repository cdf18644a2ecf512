"""The listener of ``vfkit`` VMs: a datagram socket for one VM at a time.

Theory of operation
-------------------
A VM binds its own path and sends frames to ours; the address of its first datagram identifies it. This
datagram is *peeked* at, so that a frame stays for the worker (only vfkit's greeting, ``VFKT``, is removed).
Then our socket is connected to the address. A pair connected both ways holds some 900 frames instead of 11
and accepts no frames from others. The port gets a duplicate of the socket.

WAITING ──first datagram──► TAKEN ──VM gone, or port released──► WAITING

The kernel does not report the death of a datagram peer. Three checks find it: a pidfd of the process that
sent the first datagram (SCM_CREDENTIALS); a second connect to the same address once a second, which fails if
the VM is dead and changes nothing otherwise; and the error of the worker's write. If another socket is bound
to the path meanwhile, it is another VM and gets another port.

When the port has been released, no worker has the socket any more. Then the association is dissolved, and the
same socket waits for the next VM, which may have queued frames on it already. If the operator detaches a
living VM, the socket is replaced by a new one instead, and the VM's next datagram fails. This file never
sends: a zero-length datagram would end a QEMU netdev for good.
"""

import os
import socket
import struct
import time
from contextlib import suppress

from forwarder import unix_sockets
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import PortId
from forwarder.unix_sockets import SocketFile
from supervisor.attach.addresses import Listen, PortOptions
from supervisor.attach.dissolve import dissolve
from supervisor.attach.listener_common import VmHandler, ask_for_buffers, warn_refused
from supervisor.base.logs import Throttle, log

GREETING = b"VFKT"
AT_ONCE = 16
"""Datagrams without a usable sender that are dropped in one turn."""
PAUSE_S = 0.1
"""Pause after any of these errors. A VM that cannot be accepted fills the queue and waits."""
PROBE_S = 1.0
RETRY_S = 1.0
"""Between two tries to make the socket again, whose directory may be missing."""
_CREDENTIALS = struct.Struct("3i")

Address = str | bytes


class VfkitListener:
    """One datagram socket."""

    transport = "vfkit"
    descriptors = 2
    """Descriptors that it has open: the socket and the pidfd of its VM."""

    def __init__(
        self,
        loop: Loop,
        address: Listen,
        settings: PortOptions,
        owner: VmHandler,
        adopted: tuple[PortId, socket.socket, SocketFile] | None = None,
    ) -> None:
        """Bind; or go on with a socket that a worker has kept since a supervisor died. Raises LocalError."""
        self._loop = loop
        self.url = address.url
        self.settings = settings
        self.port: PortId | None = None
        """The port of its VM, if there is one."""
        self.unclaimed = adopted is not None
        """Whether a worker brought its port and it has not been opened again yet."""
        self.file: SocketFile
        """The file of the socket, as it was bound."""
        self._owner = owner
        self._path = address.path
        self._throttle = Throttle()
        self._pidfd = -1
        self._peer: Address = ""
        self._peer_file: tuple[int, int, int] | None = None
        self._gone = False
        """Whether this VM's end has been reported."""
        self._replace = False
        self._resume_at = float("inf")
        if adopted is None:
            self._socket, self.file = self._bind()
            self._wait()
        else:
            self.port, self._socket, self.file = adopted
            with suppress(OSError):  # otherwise the first probe reports that it is gone
                self._peer = self._socket.getpeername()
            self._peer_file = _identity(self._peer)

    def close(self) -> None:
        """Stop listening. The worker's duplicate keeps the VM until the port is released."""
        self._unwatch_process()
        self._close_socket()

    def mend(self) -> SocketFile:
        """Make a new socket if its file was deleted, with a VM when its port is released; return the file."""
        if self._replace or not self.file.is_lost():
            return self.file
        self._replace = True
        log.warning(
            "%s was deleted and is made again%s", self.url, " when its VM has gone" if self.port else ""
        )
        if self.port is None:
            self.released()
        return self.file

    def disconnect(self) -> None:
        """Prepare to disconnect a living VM when its port is released."""
        self._replace = True

    def released(self) -> None:
        """Wait for the next VM: the last VM's port and worker are gone."""
        self._unwatch_process()
        self.port = None
        try:
            if self._replace:
                self._close_socket()
                self._socket, self.file = self._bind()
            else:
                dissolve(self._socket)
        except (LocalError, OSError) as error:
            self._throttle.warning("listen", f"{self.url} accepts no VM and is tried again: {error}")
            self._replace = True
            self._resume_at = time.monotonic() + RETRY_S
            return
        self._wait()

    def _close_socket(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.unwatch(self._socket.fileno())
        self.file.remove()
        self._socket.close()

    def tick(self, now: float) -> None:
        """Check whether the VM is still there; or listen again after a pause."""
        if self.port is not None:
            if not self._gone and not self._lives():
                self._report("it does not exist any more")
        elif now >= self._resume_at and self._replace:
            self.released()
        elif now >= self._resume_at:
            self._wait()

    def deadline(self) -> float:
        """When ``tick`` is urgent; the probe of a VM is not, and runs together with the others."""
        return self._resume_at

    def _bind(self) -> tuple[socket.socket, SocketFile]:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            ask_for_buffers(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            return sock, unix_sockets.bind(sock, self._path)
        except BaseException:
            sock.close()
            raise

    def _wait(self) -> None:
        self._gone = self._replace = False
        self._resume_at = float("inf")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._loop.watch(self._socket.fileno(), self._on_readable)

    def _pause(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._resume_at = time.monotonic() + PAUSE_S

    def _on_readable(self, _: int) -> None:
        for attempt in range(AT_ONCE):
            try:
                start, notes, _flags, peer = self._socket.recvmsg(
                    len(GREETING) + 1, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_PEEK
                )
            except BlockingIOError:
                if not attempt:
                    return
                break
            except OSError as error:
                self._throttle.warning("receive", f"{self.url}: {error.strerror}")
                break
            if not peer:
                self._throttle.warning(
                    "unbound", f"{self.url}: a sender without an address; a VM must bind one"
                )
            elif start and self._on_first_datagram(start, peer, _pid(notes)):
                return
            with suppress(OSError):
                self._socket.recv(1)
        self._pause()

    def _on_first_datagram(self, start: bytes, peer: Address, pid: int) -> bool:
        """Make a port for the sender; return False if its datagram is to be dropped instead."""
        try:
            self._socket.connect(peer)
        except OSError as error:
            self._throttle.warning(
                "connect",
                f"{self.url}: cannot connect back to {_show(peer)}: {error.strerror}; frame dropped",
            )
            return False
        if start == GREETING:
            self._socket.recv(len(GREETING))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        try:
            vm = os.dup(self._socket.fileno())
            try:
                self.port = self._owner.arrive(self.transport, vm, self.settings, self.url).id
            except LocalError:
                os.close(vm)
                raise
        except (LocalError, OSError) as error:
            warn_refused(self._throttle, self.url, "a VM", error)
            dissolve(self._socket)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._pause()
            return True
        self._loop.unwatch(self._socket.fileno())
        self._peer = peer
        self._peer_file = _identity(peer)
        self._watch_process(pid)
        return True

    def _lives(self) -> bool:
        if not self._peer or self._peer_file != _identity(self._peer):
            return False
        try:
            self._socket.connect(self._peer)
        except OSError:
            return False
        return True

    def _report(self, reason: str) -> None:
        if self.port is not None:
            self._gone = True
            self._owner.gone(self.port, f"its VM at {_show(self._peer)} has gone: {reason}")

    def _watch_process(self, pid: int) -> None:
        if pid <= 0:
            return
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            return  # ended already, or not visible to us: the probe will tell
        self._loop.watch(self._pidfd, lambda _: self._on_process_end(pid))

    def _on_process_end(self, pid: int) -> None:
        self._unwatch_process()
        if not self._gone and not self._lives():  # another process may have inherited the socket
            self._report(f"process {pid} ended")

    def _unwatch_process(self) -> None:
        if self._pidfd >= 0:
            self._loop.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _pid(notes: list[tuple[int, int, bytes]]) -> int:
    """Return the process that sent a datagram; 0 if the kernel does not say."""
    for level, kind, data in notes:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) >= _CREDENTIALS.size:
            pid: int = _CREDENTIALS.unpack_from(data)[0]
            return pid
    return 0


def _identity(peer: Address) -> tuple[int, int, int] | None:
    """Return the identity of the socket's file; None for an abstract address, which has no file.

    It includes the time, since file systems reuse the number of a removed inode at once.
    """
    if not peer or isinstance(peer, bytes):
        return None
    try:
        found = os.stat(peer)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _show(peer: Address) -> str:
    return peer if isinstance(peer, str) else "@" + peer[1:].decode("utf-8", "backslashreplace")

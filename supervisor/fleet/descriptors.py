"""The server of ``descriptors.sock``: one channel for each worker, and the descriptors that go over it.

A worker connects and says who it is: Ready, a spare that waits for a port, or Claim, the worker of a dead
supervisor that brings its port. Only processes of our own user are listened to, and what they say of
themselves must be what the kernel says (SO_PEERCRED). Then the worker asks for flood rings and unicast
rings; who may have which is the registry's knowledge, asked through ``ChannelHandler``.

A channel that ends, or that is not read, is reported once by ``lost``; it is closed by then.
"""

import socket
from contextlib import suppress
from typing import Protocol

from forwarder import unix_sockets
from forwarder.acceptor import Acceptor, Pauses
from forwarder.channel import BACKLOG, Channel, ChannelClosedError, close_all, credentials_of
from forwarder.errors import LocalError, PeerError
from forwarder.loop import READ, WRITE, Loop
from forwarder.names import Identity, Incarnation, PortRecord
from forwarder.wire import (
    MAX_FLOODS,
    Assign,
    Claim,
    Floods,
    Guarded,
    KeepSession,
    Message,
    Ready,
    RingRx,
    RingTx,
    WantFloods,
    WantRing,
)
from supervisor.base.logs import Throttle
from supervisor.fleet.fd_store import FdStore, make_ring

AT_ONCE = 64
"""Messages taken in one go, so that one worker cannot keep the loop from the others."""
UNKNOWN = 64
"""Connections that have not said who they are; workers say so at once."""


class WorkerChannel:
    """One worker's channel."""

    __slots__ = ("channel", "identity", "pid", "served")

    def __init__(self, channel: Channel, pid: int) -> None:
        self.channel = channel
        self.pid = pid
        self.identity: Identity | None = None
        """Known after its first message."""
        self.served: Incarnation | None = None
        """The port that it was given, or that it brought."""


class ChannelHandler(Protocol):
    """Decides about workers; called from the loop."""

    def ready(self, worker: WorkerChannel, version: int) -> None:
        """Take a spare worker that waits for a port."""

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        """Take or refuse a worker that brings a port; the descriptors are the owner's in any case."""

    def lost(self, worker: WorkerChannel) -> None:
        """Note that a channel has ended."""

    def guarded(self, served: Incarnation, message: Guarded) -> None:
        """Note what a worker's guard has refused for the first time."""

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        """Return the worker of that incarnation of a port, if it forwards."""

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        """Return the record of that incarnation of a port as it is now; None if it is over."""


class DescriptorServer:
    """All channels."""

    def __init__(
        self, loop: Loop, pauses: Pauses, path: str, owner: ChannelHandler, fd_store: FdStore
    ) -> None:
        """Listen on ``path``. Raises LocalError."""
        self._loop = loop
        self._owner = owner
        self._fd_store = fd_store
        self._throttle = Throttle()
        self._workers: dict[WorkerChannel, None] = {}
        """In the order in which they came."""
        self._socket, self._file = unix_sockets.listen(path, socket.SOCK_SEQPACKET)
        self._acceptor = Acceptor(loop, self._socket, self._on_connection, pauses, self._starved)

    def send(self, worker: WorkerChannel, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send to a worker; False if its channel has ended, which has been reported then."""
        if worker not in self._workers:
            return False
        try:
            worker.channel.send(message, descriptors)
        except ChannelClosedError:
            self.drop(worker)
            return False
        self._watch(worker)
        return True

    def holders(self) -> list[WorkerChannel]:
        """Return the workers that have a port, the one that has had its channel for longest first."""
        return [worker for worker in self._workers if worker.served is not None]

    def drop(self, worker: WorkerChannel) -> None:
        """Close a channel and report it."""
        if worker in self._workers:
            del self._workers[worker]
            self._loop.unwatch(worker.channel.fileno())
            worker.channel.close()
            self._owner.lost(worker)

    def assign(self, worker: WorkerChannel, message: Assign, descriptors: tuple[int, ...]) -> bool:
        """Give a port to a worker, and first what another one kept of its session; like ``send``."""
        held = self._fd_store.get(message.record.port)
        if held is not None and held.kept is not None:
            self.send(worker, held.kept, held.kept_fds)
        return self.send(worker, message, descriptors)

    def read_out(self, served: Incarnation) -> None:
        """Take all that a port's worker said before it ended; then its channel has ended, too."""
        for worker in [each for each in self._workers if each.served == served]:
            for _ in range(BACKLOG // AT_ONCE):  # no socket buffer holds more
                self._on_channel(worker, READ)

    def flush(self) -> None:
        """Try again what could not be sent for a reason that polling does not see; now and then."""
        for worker in [each for each in self._workers if each.channel.backlog]:
            self._flush(worker)

    def close(self) -> None:
        """Close everything; nothing is reported."""
        self._acceptor.close()
        self._file.remove()
        self._socket.close()
        for worker in self._workers:
            self._loop.unwatch(worker.channel.fileno())
            worker.channel.close()
        self._workers.clear()

    def _on_connection(self, sock: socket.socket) -> None:
        credentials = credentials_of(sock)
        unknown = sum(each.identity is None for each in self._workers)
        if not credentials.are_ours or unknown >= UNKNOWN:
            process = f"process {credentials.pid} of user {credentials.uid}"
            self._throttle.warning("refused", f"{process} was refused a channel")
            sock.close()
            return
        worker = WorkerChannel(Channel(sock), credentials.pid)
        self._workers[worker] = None
        self._watch(worker)
        self._on_channel(worker, READ)  # its first message comes with the connection

    def _starved(self, why: str) -> None:
        self._throttle.warning("accept", f"cannot accept a worker's channel: {why}")

    def _watch(self, worker: WorkerChannel) -> None:
        events = READ | WRITE if worker.channel.wants_write else READ
        self._loop.watch(worker.channel.fileno(), lambda ready: self._on_channel(worker, ready), events)

    def _flush(self, worker: WorkerChannel) -> None:
        try:
            worker.channel.flush()
        except ChannelClosedError:
            self.drop(worker)
        else:
            self._watch(worker)

    def _on_channel(self, worker: WorkerChannel, events: int) -> None:
        if events & WRITE:
            self._flush(worker)
        for _ in range(AT_ONCE):
            if worker not in self._workers:
                return
            try:
                received = worker.channel.receive()
                if received is None:
                    return
                self._on_message(worker, *received)
            except ChannelClosedError:
                self.drop(worker)
            except PeerError as error:
                self._throttle.warning("bad", f"bad message on the channel of process {worker.pid}: {error}")
                if worker.identity is None:
                    self.drop(worker)
            except Exception:
                self.drop(worker)
                raise

    def _on_message(self, worker: WorkerChannel, message: Message, descriptors: tuple[int, ...]) -> None:
        if isinstance(message, (Ready, Claim)):
            if worker.identity is not None or message.identity.pid != worker.pid:
                close_all(descriptors)
                raise PeerError(f"a {type(message).__name__} of process {message.identity.pid}")
            worker.identity = message.identity
            if isinstance(message, Ready):
                self._owner.ready(worker, message.version)
            else:
                self._owner.claimed(worker, message, descriptors)
        elif isinstance(message, WantRing) and worker.served is not None:
            self._give_ring(worker, worker.served, message)
        elif isinstance(message, WantFloods) and worker.served is not None:
            self._give_floods(worker, message)
        elif isinstance(message, KeepSession) and worker.served is not None:
            self._keep(worker.served, message, descriptors)
        elif isinstance(message, Guarded) and worker.served is not None:
            self._owner.guarded(worker.served, message)
        else:
            close_all(descriptors)
            raise PeerError(f"a {type(message).__name__} is not for the supervisor now")

    def _keep(self, served: Incarnation, message: KeepSession, descriptors: tuple[int, ...]) -> None:
        record = self._owner.record(served)
        if record is not None and record.transport == "vhost":
            self._fd_store.keep(served.port, message, descriptors)
            return
        close_all(descriptors)
        if record is not None:
            raise PeerError(f"port {served.port} is of {record.transport} and has no session to keep")

    def _give_ring(self, worker: WorkerChannel, served: Incarnation, want: WantRing) -> None:
        """Make a ring and give its ends away, the consumer's first: no frame waits for a reader in vain.

        The producer gets its end once the kernel has the consumer's for sure. What still waits here would be
        lost with this process or this channel, and the producer would fill a ring that nobody knows of. A
        request that cannot be met gets no answer: the worker repeats it (``links.REPEAT_S``) for as long as
        its membership has the port.
        """
        other = self._owner.holder(want.port, want.epoch)
        source = self._owner.record(served)  # its HELLO may still be on its way
        destination = self._owner.record(Incarnation(want.port, want.epoch))
        held = self._fd_store.get(want.port)
        if other is None or source is None or destination is None or held is None or other.channel.backlog:
            return
        try:
            ring = make_ring(source, destination)
        except LocalError as error:
            self._throttle.warning("ring", f"port {source.port} gets no ring to port {want.port}: {error}")
            return
        try:
            half = RingRx(source.port, source.epoch)
            if self.send(other, half, (ring.reading, ring.tail)) and not other.channel.backlog:
                self.send(worker, RingTx(want.port, want.epoch), (ring.writing, ring.tail, held.doorbell))
        finally:
            close_all(ring)

    def _give_floods(self, worker: WorkerChannel, want: WantFloods) -> None:
        """Give the flood rings that there are; a message with fewer than MAX_FLOODS ends the answer."""
        found: list[tuple[tuple[int, int], int]] = []
        for port, epoch in want.ports:
            held = self._fd_store.get(port)
            if held is not None and held.flood_epoch == epoch and self._owner.holder(port, epoch):
                found.append(((port, epoch), held.flood))
        for start in range(0, len(found) + 1, MAX_FLOODS):
            part = found[start : start + MAX_FLOODS]
            with suppress(LocalError):  # out of descriptors to queue it with; the worker asks again
                self.send(worker, Floods(tuple(link for link, _ in part)), tuple(fd for _, fd in part))

"""The server of ``descriptors.sock``: one channel for each worker, and the descriptors that go over it.

A worker connects and says who it is: Ready, a spare that waits for a port, or Claim, the worker of a dead
supervisor that brings its port. Only processes of our own user are listened to, and what they say of
themselves must be what the kernel says (SO_PEERCRED). Then the worker asks for flood rings and unicast
rings; who may have which is the registry's knowledge, asked through ``Owner``.

A channel that ends, or that is not read, is reported once by ``lost``; it is closed by then.
"""

import socket
from contextlib import suppress
from typing import Protocol

from forwarder.channel import Channel, ChannelClosedError, close_all, credentials_of
from forwarder.errors import LocalError, PeerError
from forwarder.loop import READ, WRITE, Loop
from forwarder.names import Identity, PortRecord
from forwarder.wire import (
    MAX_FLOODS,
    Claim,
    Floods,
    LinkLost,
    Message,
    Ready,
    RingRx,
    RingTx,
    WantFloods,
    WantRing,
)
from supervisor.base import unix_sockets
from supervisor.base.logs import Throttle
from supervisor.fleet.fd_store import Custody, make_ring

AT_ONCE = 64
"""Connections or messages taken in one go, so that one worker cannot keep the loop from the others."""
UNKNOWN = 64
"""Connections that have not said who they are; workers say so at once."""


class Peer:
    """One worker's channel."""

    __slots__ = ("channel", "identity", "pid", "record")

    def __init__(self, channel: Channel, pid: int) -> None:
        self.channel = channel
        self.pid = pid
        self.identity: Identity | None = None
        """Known after its first message."""
        self.record: PortRecord | None = None
        """The port that it was given, or that it brought."""


class Owner(Protocol):
    """Who decides about workers; called from the loop."""

    def ready(self, peer: Peer, version: int) -> None:
        """Take a spare worker that waits for a port."""

    def claimed(self, peer: Peer, claim: Claim, descriptors: tuple[int, ...]) -> None:
        """Take or refuse a worker that brings a port; the descriptors are the owner's in any case."""

    def lost(self, peer: Peer) -> None:
        """Note that a channel has ended."""

    def holder(self, port: int, epoch: int) -> Peer | None:
        """Return the worker of that incarnation of a port, if it forwards."""


class DescriptorServer:
    """All channels."""

    def __init__(self, loop: Loop, path: str, owner: Owner, custody: Custody) -> None:
        """Listen on ``path``. Raises LocalError."""
        self._loop = loop
        self._owner = owner
        self._custody = custody
        self._throttle = Throttle()
        self._peers: dict[Peer, None] = {}
        """In the order in which they came."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        try:
            unix_sockets.bind(self._socket, path)
        except LocalError:
            self._socket.close()
            raise
        self._socket.listen(socket.SOMAXCONN)
        loop.watch(self._socket.fileno(), self._on_connect)

    def send(self, peer: Peer, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send to a worker; False if its channel has ended, which has been reported then."""
        if peer not in self._peers:
            return False
        try:
            peer.channel.send(message, descriptors)
        except ChannelClosedError:
            self.drop(peer)
            return False
        self._watch(peer)
        return True

    def holders(self) -> list[Peer]:
        """Return the workers that have a port, the one that has had its channel for longest first."""
        return [peer for peer in self._peers if peer.record is not None]

    def drop(self, peer: Peer) -> None:
        """Close a channel and report it."""
        if peer in self._peers:
            del self._peers[peer]
            self._loop.unwatch(peer.channel.fileno())
            peer.channel.close()
            self._owner.lost(peer)

    def flush(self) -> None:
        """Try again what could not be sent for a reason that polling does not see; now and then."""
        for peer in [each for each in self._peers if each.channel.backlog]:
            self._flush(peer)

    def close(self) -> None:
        """Close everything; nothing is reported."""
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for peer in self._peers:
            self._loop.unwatch(peer.channel.fileno())
            peer.channel.close()
        self._peers.clear()

    def _on_connect(self, _: int) -> None:
        for _attempt in range(AT_ONCE):
            try:
                sock, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._throttle.warning("accept", f"cannot accept a worker's channel: {error.strerror}")
                return
            peer_is = credentials_of(sock)
            unknown = sum(each.identity is None for each in self._peers)
            if not peer_is.are_ours or unknown >= UNKNOWN:
                who = f"process {peer_is.pid} of user {peer_is.uid}"
                self._throttle.warning("refused", f"{who} was refused a channel")
                sock.close()
                continue
            peer = Peer(Channel(sock), peer_is.pid)
            self._peers[peer] = None
            self._watch(peer)
            self._on_channel(peer, READ)  # it has said who it is as it came

    def _watch(self, peer: Peer) -> None:
        events = READ | WRITE if peer.channel.wants_write else READ
        self._loop.watch(peer.channel.fileno(), lambda ready: self._on_channel(peer, ready), events)

    def _flush(self, peer: Peer) -> None:
        try:
            peer.channel.flush()
        except ChannelClosedError:
            self.drop(peer)
        else:
            self._watch(peer)

    def _on_channel(self, peer: Peer, events: int) -> None:
        if events & WRITE:
            self._flush(peer)
        for _ in range(AT_ONCE):
            if peer not in self._peers:
                return
            try:
                received = peer.channel.receive()
                if received is None:
                    return
                self._take(peer, *received)
            except ChannelClosedError:
                self.drop(peer)
            except PeerError as error:
                self._throttle.warning("bad", f"bad message on the channel of process {peer.pid}: {error}")
                if peer.identity is None:
                    self.drop(peer)

    def _take(self, peer: Peer, message: Message, descriptors: tuple[int, ...]) -> None:
        if isinstance(message, (Ready, Claim)):
            if peer.identity is not None or message.identity.pid != peer.pid:
                close_all(descriptors)
                raise PeerError(f"a {type(message).__name__} of process {message.identity.pid}")
            peer.identity = message.identity
            if isinstance(message, Ready):
                self._owner.ready(peer, message.version)
            else:
                self._owner.claimed(peer, message, descriptors)
        elif isinstance(message, WantRing) and peer.record is not None:
            self._give_ring(peer, peer.record, message)
        elif isinstance(message, WantFloods) and peer.record is not None:
            self._give_floods(peer, message)
        else:
            close_all(descriptors)
            raise PeerError(f"a {type(message).__name__} is not for the supervisor now")

    def _give_ring(self, peer: Peer, source: PortRecord, want: WantRing) -> None:
        """Make a ring and give its ends away, the consumer's first: no frame waits for a reader in vain.

        The producer gets its end once the kernel has the consumer's for sure. What still waits here would be
        lost with this process or this channel, and the producer would fill a ring that nobody knows of. It
        asks again.
        """
        other = self._owner.holder(want.port, want.epoch)
        held = self._custody.get(want.port)
        own = self._custody.get(source.port)
        mine = own is not None and own.flood_epoch == source.epoch  # its HELLO may still be on its way
        if other is None or other.record is None or held is None or not mine or other.channel.backlog:
            self.send(peer, LinkLost(want.port, want.epoch))
            return
        try:
            ring = make_ring(source, other.record)
        except LocalError as error:
            self._throttle.warning("ring", f"port {source.port} gets no ring to port {want.port}: {error}")
            self.send(peer, LinkLost(want.port, want.epoch))
            return
        try:
            half = RingRx(source.port, source.epoch)
            if self.send(other, half, (ring.reading, ring.tail)) and not other.channel.backlog:
                self.send(peer, RingTx(want.port, want.epoch), (ring.writing, ring.tail, held.doorbell))
        finally:
            close_all(ring)

    def _give_floods(self, peer: Peer, want: WantFloods) -> None:
        found: list[tuple[tuple[int, int], int]] = []
        for port, epoch in want.ports:
            held = self._custody.get(port)
            if held is not None and held.flood_epoch == epoch and self._owner.holder(port, epoch):
                found.append(((port, epoch), held.flood))
            else:
                self.send(peer, LinkLost(port, epoch))
        for start in range(0, len(found), MAX_FLOODS):
            part = found[start : start + MAX_FLOODS]
            with suppress(LocalError):  # out of descriptors to queue it with; the worker asks again
                self.send(peer, Floods(tuple(link for link, _ in part)), tuple(fd for _, fd in part))

"""Read guests' frames to the outside: find the port of each, check its source, and pass its packet on.

A frame of the packet sockets (``frame_sockets``) belongs to the port that the switch has heard its Ethernet
source through, whatever the guest writes into the packet. If that port has left, the frame is dropped: its
answer would go to the next holder of the IP address. A packet with a source outside the LAN is dropped, too.
Fragments are reassembled (``fragments``). Whole packets go on by kind: datagrams and pings to ``nat``, SYNs
to ``handshakes``.

A guest that sends too fast costs the others little: a socket with more frames than fit a slice of time is
*behind*. It is read on when nothing else happens, or after ``BEHIND_S``. Frames without room in its queue are
lost; the kernel counts them.
"""

import socket
import struct
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from forwarder._core import SHED_FORGED
from forwarder.future import Future
from forwarder.messages import Reply
from gateway.ip.answers import VNET_HEADER
from gateway.ip.fragments import Reassembly
from gateway.ip.packets import (
    TCP_NUMBER,
    DamagedError,
    Datagram,
    Echo,
    Packet,
    Refusal,
    Syn,
    parse,
    read,
)
from gateway.poller import READ
from gateway.relay.flow_context import BATCH, Common
from gateway.relay.frame_sockets import lost_since
from gateway.relay.policy import OutboundPolicy, is_guest
from gateway.relay.sources import Sources

SLICE_S = 0.0003
"""Time for the frames of one socket in one turn: two connections, or some batches."""

SHED_S = 0.01
"""After a frame with a false source was refused, more of them are only counted for this time. That costs a
fiftieth; the next log line has their number."""

BEHIND_S = 0.001
"""How long a socket that is behind waits while other events happen."""

_PORT = struct.Struct(">H")
_First = tuple[bytes, bytes, int, bytes]
"""The first segment of a connection, as the core reads it."""
_ETHERNET = 14
_SOURCE = slice(6, 12)
_NEEDS_CSUM, _CSUM_VALID = 1, 2
_GSO_UDP_SEGMENTS = 5


class Sender(NamedTuple):
    """The sender of a frame."""

    mac: bytes
    owner: Hashable
    """The port."""

    def __str__(self) -> str:
        return f"{self.owner} ({self.mac.hex(':')})"


class Way(NamedTuple):
    """The sockets from the namespace; the receiving part of the relay closes them."""

    tun: int
    frames: list[socket.socket]
    owner_of: Callable[[bytes], Hashable | None]
    """The ports, by MAC address."""
    neighbours: Callable[[], Future[Reply]]
    """Asks for pairs of a LAN's IP address and a MAC address (hexadecimal digits)."""
    mtu: int
    """Of the LAN."""


class Datagrams(Protocol):
    """The part that carries datagrams and pings."""

    def send(self, packet: Datagram | Echo, way: Packet, sender: Sender, now: float) -> None:
        """Carry a datagram; ``way`` has the IP header's fields."""

    def arrived(self, packet: Packet) -> None:
        """Take a reassembled packet for the gateway itself. Raises DamagedError."""

    def refused(self, refusal: Refusal, sender: Sender) -> None:
        """Take an ICMP error about an answer."""


class Connections(Protocol):
    """The part that makes connections."""

    def syn(self, key: bytes, hops: int, whole: bytes, sender: Sender) -> None:
        """Take the first segment of a connection; ``whole`` is the packet for the TUN device.

        ``key`` has the guest's address and port, and the requested ones, as they are in the packet.
        """


class Frames:
    """The reader of the packet sockets."""

    def __init__(
        self,
        common: Common,
        way: Way,
        policy: OutboundPolicy,
        datagrams: Datagrams,
        connections: Connections,
    ) -> None:
        """Read the sockets of ``way``; this object closes them."""
        self._own = frozenset((policy.gateway4.packed, policy.prefix[1].packed))
        self._poller, _, self._counts, self._clock, self._core = common
        self._sockets = way.frames
        self._owner_of = way.owner_of
        self._datagrams = datagrams
        self._connections = connections
        self._is_guest = lru_cache(maxsize=4096)(lambda source: is_guest(policy, ip_address(source)))
        self._sources = Sources()
        self.forget = self._sources.forget
        self._reassembly = Reassembly()
        self._behind: dict[socket.socket, float] = {}
        for sock in self._sockets:
            self._watch(sock)

    def tick(self, now: float) -> None:
        """Give up fragments that have waited too long."""
        self._reassembly.expire(now)
        self._count_dropped()

    def deadline(self) -> float | None:
        """Return when to call ``tick``."""
        return self._reassembly.deadline()

    def close(self) -> None:
        """Close the sockets."""
        self._behind.clear()
        for sock in self._sockets:
            self._poller.unwatch(sock.fileno())
            sock.close()

    def count_lost(self) -> None:
        """Count the frames that the sockets have lost since the last time."""
        for sock in self._sockets:
            self._counts["frames_lost"] += lost_since(sock)

    def _event(self, sock: socket.socket, _: int) -> None:
        if not self._read(sock):
            self._poller.unwatch(sock.fileno())
            self._behind[sock] = self._clock()
            self._poller.soon(self._catch_up)

    def _catch_up(self, _: int) -> None:
        """Read on from the socket that is behind for longest."""
        sock, since = next(iter(self._behind.items()), (None, 0.0))
        if sock is None:
            return
        if self._poller.quiet or self._clock() >= since + BEHIND_S:
            del self._behind[sock]
            if self._read(sock):
                self._watch(sock)
            else:
                self._behind[sock] = self._clock()
        if self._behind:
            self._poller.soon(self._catch_up)

    def _read(self, sock: socket.socket) -> bool:
        """Read frames for a slice of time; return whether there is nothing more."""
        begin = now = self._clock()
        while now < begin + SLICE_S:
            try:
                count, _, left = self._core.read_frames(sock.fileno())
            except OSError:  # nothing more, or the interface is gone: the namespace's process says so
                return True
            for frame in left:
                try:
                    self._take_left(frame, now)
                except Exception:  # a mistake of ours costs this frame, and no other guest its way out
                    self._poller.failed()
            if count < BATCH:
                return True
            now = self._clock()
        return False

    def _take_left(self, frame: bytes | _First, now: float) -> None:
        """Take what the core has left to this process."""
        if isinstance(frame, tuple):
            self._take_syn(*frame)
        elif len(frame) >= VNET_HEADER.size + _ETHERNET:
            self._take(memoryview(frame), now)

    def _watch(self, sock: socket.socket) -> None:
        self._poller.watch(sock.fileno(), partial(self._event, sock), READ)

    def _take(self, frame: memoryview, now: float) -> None:
        header = VNET_HEADER.unpack_from(frame)
        ethernet = frame[VNET_HEADER.size :]
        sender = self._sender(bytes(ethernet[_SOURCE]))
        if sender is None:
            return
        data = ethernet[_ETHERNET:]
        try:
            packet = parse(data)
            if packet is None:
                self._counts.refuse("not_carried", sender, "no IP packet")
            elif not self._is_guest(packet.source):
                self._refuse_forged(packet.source, sender)
            elif not self._sources.allows(sender.owner, packet.source, now):
                self._counts.refuse("sources", sender, ip_address(packet.source))
            elif packet.fragment is None:
                self._give(packet, header, data, sender, now)
            else:
                self._rejoin(packet, sender, now)
        except DamagedError:
            self._counts.refuse("damaged", sender, f"{len(data)} bytes")

    def _take_syn(self, mac: bytes, key: bytes, hops: int, whole: bytes) -> None:
        """Take the first segment of a connection, which the core has read."""
        sender = self._sender(mac)
        if sender is None:
            return
        source = key[: len(key) // 2 - _PORT.size]
        if not self._is_guest(source):
            self._refuse_forged(source, sender)
        elif not self._sources.allows(sender.owner, source, self._clock()):
            self._counts.refuse("sources", sender, ip_address(source))
        else:
            self._connections.syn(key, hops, whole, sender)

    def _sender(self, mac: bytes) -> Sender | None:
        """Return the sender of a frame; count the frame if its port has left."""
        owner = self._owner_of(mac)
        if owner is None:
            self._counts.refuse("no_port", mac.hex(":"), "no port")
            return None
        return Sender(mac, owner)

    def _refuse_forged(self, source: bytes, sender: Sender) -> None:
        self._counts.refuse("spoofed", sender, ip_address(source))
        self._core.shed(sender.mac, SHED_FORGED, SHED_S)

    def _rejoin(self, packet: Packet, sender: Sender, now: float) -> None:
        whole = self._reassembly.add(packet, sender.mac, sender.owner, now)
        self._count_dropped()
        if whole is not None and whole.destination in self._own:
            self._datagrams.arrived(whole)
        elif whole is not None:
            self._carry(whole, sender, now, summed=True)

    def _count_dropped(self) -> None:
        self._counts["fragments_dropped"] += self._reassembly.dropped
        self._reassembly.dropped = 0

    def _give(
        self, packet: Packet, header: tuple[int, ...], data: memoryview, sender: Sender, now: float
    ) -> None:
        flags, gso, _, gso_size, start, offset = header
        if packet.number == TCP_NUMBER:
            syn = read(packet, summed=False)
            if isinstance(syn, Syn):
                vnet = VNET_HEADER.pack(flags & _NEEDS_CSUM, 0, 0, 0, max(0, start - _ETHERNET), offset)
                key = b"".join(
                    (syn.source, _PORT.pack(syn.source_port), syn.destination, _PORT.pack(syn.port))
                )
                self._connections.syn(key, packet.hops, vnet + data, sender)
        else:
            cut = gso_size if gso == _GSO_UDP_SEGMENTS else 0
            self._carry(packet, sender, now, summed=not flags & (_NEEDS_CSUM | _CSUM_VALID), cut=cut)

    def _carry(self, packet: Packet, sender: Sender, now: float, *, summed: bool, cut: int = 0) -> None:
        """Pass a whole packet on; ``cut`` is the size of each datagram in it, if it holds several."""
        carried = read(packet, summed=summed)
        if isinstance(carried, Datagram) and cut:
            for begin in range(0, len(carried.payload), cut):
                piece = carried._replace(payload=carried.payload[begin : begin + cut])
                self._datagrams.send(piece, packet, sender, now)
        elif isinstance(carried, Datagram | Echo):
            self._datagrams.send(carried, packet, sender, now)
        elif isinstance(carried, Refusal):
            self._datagrams.refused(carried, sender)
        else:
            self._counts.refuse("not_carried", sender, f"protocol {packet.number}")

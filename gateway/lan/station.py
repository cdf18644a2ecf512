"""The gateway's packet sockets on the LAN: delivers each frame with the port that it came through.

Theory of operation
-------------------
Questions for leases, names and routers are heard and answered as Ethernet frames. So the port of each
question is known (``Ports``), and its share is checked first (``Rates``). An answer goes to the Ethernet
address that the question came from. It waits for no ARP, so a guest with a false address, or one that does
not answer ARP, delays no other guest.

A frame a little beyond its port's share waits. A frame far beyond it is dropped and counted (``over_rate``)
before any work is done for it. The kernel drops more than a few thousand such frames a second of one guest
(``gateway.inside.limits``).

A frame from an address without a port is dropped and counted (``no_port``): its VM has just left.
"""

import heapq
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from forwarder.names import GATEWAY_MAC
from gateway.lan.frames import HEADERS, Datagram, parse, udp
from gateway.poller import READ, Poller
from gateway.ports import Port, Ports
from gateway.rates import Rates
from gateway.relay.counts import Counts
from gateway.relay.frame_sockets import lost_since

LONGEST = 65535 + 14
BURST = 64
"""Frames read from one socket before the others get their turn."""

Hear = Callable[[Any, Port, float], None]
"""Called with the result of ``frames.parse``, the frame's port, and the time."""


class Station:
    """The packet sockets, and the listeners by kind of frame."""

    def __init__(
        self,
        poller: Poller,
        sockets: Sequence[socket.socket],
        ports: Ports,
        mtu: int,
        counters: Counts,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Take over ``sockets``, one for each kind of question; ``listen`` says when to begin."""
        self._poller = poller
        self._sockets = sockets
        self._ports = ports
        self._mtu = mtu
        self._counters = counters
        self._clock = clock
        self._hear: Mapping[object, tuple[Hear, Rates]] = {}
        self._waiting: list[tuple[float, int, Callable[[float], None], Port]] = []
        """Frames that wait for their time, the next one first; ``Rates`` bounds them for each port."""
        self._number = 0

    def listen(self, hear: Mapping[object, tuple[Hear, Rates]]) -> None:
        """Begin to hear. Frames go to the listener of their UDP port or type; each has its own rate."""
        self._hear = hear
        for _, rates in hear.values():
            self._ports.when_left(rates.forget)
        for sock in self._sockets:
            sock.setblocking(False)
            self._poller.watch(sock.fileno(), partial(self._ready, sock), READ)

    def tick(self, now: float) -> None:
        """Deliver the frames whose time has come."""
        while self._waiting and self._waiting[0][0] <= now:
            _, _, hear, port = heapq.heappop(self._waiting)
            if port in self._ports:
                hear(now)

    def deadline(self) -> float | None:
        """When to call ``tick``; None while nothing waits."""
        return self._waiting[0][0] if self._waiting else None

    def most(self, version: int) -> int:
        """Return how many bytes of payload one datagram holds."""
        return self._mtu - HEADERS[version]

    def answer(self, datagram: Datagram) -> None:
        """Send a datagram; it must not be longer than ``most``."""
        self.send(udp(GATEWAY_MAC, datagram))

    def send(self, frame: bytes) -> None:
        """Send a frame; if the kernel does not take it, it is lost and counted."""
        try:
            self._sockets[0].send(frame)
        except OSError:
            self._counters["lan_dropped"] += 1

    def count_lost(self) -> None:
        """Count the questions that the kernel has lost because the gateway did not read them."""
        for sock in self._sockets:
            self._counters["lan_lost"] += lost_since(sock)

    def drain(self) -> None:
        """Read all waiting frames now, for a caller that cannot wait for the poller."""
        for sock in self._sockets:
            self._ready(sock, 0)

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets:
            self._poller.unwatch(sock.fileno())
            sock.close()

    def _ready(self, sock: socket.socket, _: int) -> None:
        now = self._clock()
        for _ in range(BURST):
            try:
                frame = sock.recv(LONGEST)
            except OSError:  # nothing more, or the interface is gone: the namespace's process says so
                return
            try:
                self._take(frame, now)
            except Exception:  # a mistake of ours costs this frame, and no other guest its answers
                self._poller.failed()

    def _take(self, frame: bytes, now: float) -> None:
        heard = parse(frame)
        if heard is None:
            self._counters["lan_malformed"] += 1
            return
        hear, rates = self._hear[heard.port if isinstance(heard, Datagram) else type(heard)]
        port = self._ports.of(heard.mac)
        if port is None:
            self._counters.refuse("no_port", heard.mac.hex(":"), "no port")
            return
        wait = rates.take(port, now)
        if wait is None:
            kind = heard.port if isinstance(heard, Datagram) else type(heard).__name__.lower()
            self._counters.refuse("over_rate", f"port {port.number}", f"{heard.mac.hex(':')}, {kind}")
        elif wait:
            self._number += 1
            later: Callable[[float], None] = partial(hear, heard, port)
            heapq.heappush(self._waiting, (now + wait, self._number, later, port))
        else:
            hear(heard, port, now)

"""A relay on loopback for tests: guests are sockets of this process, and time passes when it is turned.

``World.guest`` connects as a guest that asks for an address; the namespace's transparent listener is played
by a pair of sockets whose own address is what was asked for.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import ip_address

from forwarder.errors import LocalError
from forwarder.loop import Loop
from gateway.relay.forwards import Forward
from gateway.relay.policy import OutboundPolicy
from gateway.relay.relay import MakeInside, Relay
from tests.helpers.fakes import reraise
from tests.helpers.guests.waiting import PATIENCE
from tests.helpers.host_listeners import HostListeners

KINDS = {"tcp4": socket.SOCK_STREAM, "udp4": socket.SOCK_DGRAM}


class World:
    """One relay; its LAN is loopback (of 127.1.0.0/16) unless a maker of other sockets is given."""

    def __init__(self, policy: OutboundPolicy, make: MakeInside | None = None) -> None:
        self.loop = Loop(reraise)
        self.made: list[str] = []
        self.delay: list[Callable[[], None]] | None = None
        self.logged: list[str] = []
        self._listeners = HostListeners()
        self.relay = Relay(
            self.loop, make or self._make, policy, log=lambda level, text: self.logged.append(text)
        )

    def _make(self, kind: str, deliver: Callable[[socket.socket | None], None]) -> None:
        self.made.append(kind)
        sock = socket.socket(socket.AF_INET, KINDS[kind] | socket.SOCK_NONBLOCK)
        if self.delay is None:
            deliver(sock)
        else:
            self.delay.append(lambda: deliver(sock))

    def turn(self, timeout: float = 0.01) -> None:
        """Let the relay do what there is to do."""
        deadline = self.relay.deadline()
        if deadline is not None:
            timeout = min(timeout, deadline - time.monotonic())
        self.loop.turn(timeout)
        self.relay.tick(time.monotonic())

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Turn until ``condition`` holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited for {what}: {self.relay.counters()}"
            self.turn()

    def forward(self, server: socket.socket, kind: str = "tcp") -> Forward:
        """Add a forward to ``server``, at a port that the kernel chooses."""
        guest, port = server.getsockname()[:2]
        return self.add(Forward(kind, ip_address(guest), port, ip_address("127.0.0.1"), 0))

    def add(self, forward: Forward) -> Forward:
        """Add a forward with a listener of its own. Raises LocalError, and nothing is left then."""
        self.relay.begin(forward)
        try:
            listener = self._listeners.at(forward)
        except LocalError:
            self.relay.give_up(forward)
            raise
        return self.relay.add(forward, listener)

    def count(self, name: str) -> int:
        return self.relay.counters().get(name, 0)

    def close(self) -> None:
        self.relay.close()
        self.loop.close()


def server(address: str = "127.1.0.2", port: int = 0) -> socket.socket:
    """A listener, of a guest unless another address is given."""
    sock = socket.create_server((address, port), backlog=4096)
    sock.setblocking(False)
    return sock


def client(forward: Forward) -> socket.socket:
    """A client of the host that is connected to a forward; it does not block."""
    sock = socket.create_connection((str(forward.host), forward.port))
    sock.setblocking(False)
    return sock


def try_accept(listener: socket.socket) -> socket.socket | None:
    try:
        sock, _ = listener.accept()
    except BlockingIOError:
        return None
    sock.setblocking(False)
    return sock


def drain(sock: socket.socket, into: bytearray) -> bool:
    """Read what there is, and say whether the end was reached. Raises OSError for a reset."""
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(1 << 20):
            into += data
        return True
    return False


def is_reset(sock: socket.socket) -> bool:
    """Whether the peer has reset the connection."""
    try:
        while sock.recv(1 << 20):
            continue
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    raise AssertionError("the connection ended in good order")


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def stall(world, sock):
    """Send until neither the sockets nor the relay take any more; return how many bytes they took."""
    block, idle, sent = bytes(1 << 20), 0, 0
    while idle < 20:
        try:
            sent += sock.send(block)
            idle = 0
        except BlockingIOError:
            idle += 1
        world.turn(0.001)
    return sent


def received(world, sock):
    got = []

    def more():
        with contextlib.suppress(BlockingIOError):
            got.append(sock.recvfrom(65535))
        return got

    world.until(more, "a datagram")
    return got[0]

"""Two thousand connections through a running gateway to a guest, one with a stalled reader; what they leave.

``test_relay_many`` shows the same of the relay alone. Here all of it takes part: the switch as a user
starts it, a forward, the namespace's kernel, both workers and a guest with a kernel of its own. The host is
a namespace of the test, so that ports and counts of sockets are its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from forwarder._core import SPLICE_KEPT_PIPES as KEPT_PIPES
from gateway.stock import BATCH
from scripts.benchmarks.report import proc
from tests.helpers.gateway.processes import process
from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

NewNamespace = Callable[[str], Namespace]
pytestmark = pytest.mark.guest

GUEST, GATEWAY = "192.168.127.2", "192.168.127.1"
MANY = 2000
DATA = os.urandom(20_000)
EXCHANGE_S = 120.0
DESCRIPTORS = 20_000
"""What the gateway needs at least for so many connections of one forward, worst case (``gateway.tcp``)."""

GROWTH = 1 << 20
"""Bytes by which all processes of the switch may grow the second time: 500 for each connection, less than an
object that was forgotten."""


class Place(NamedTuple):
    """A host with a switch and one guest on it."""

    switch: Switch
    host: Namespace
    guest: Namespace
    listener: socket.socket
    """Of the guest's server."""
    port: int
    """Of the host, that leads there."""

    def processes(self) -> dict[str, int]:
        """Return the pids of the gateway's two processes, by module."""
        return {module: process(self.switch, module) for module in ("gateway", "gateway.inside")}

    def sockets(self) -> tuple[int, ...]:
        """Return how many TCP sockets the host, the gateway's namespace and the guest have."""
        inside = self.processes()["gateway.inside"]
        texts = (
            self.host.run("cat /proc/net/sockstat"),
            Path(f"/proc/{inside}/net/sockstat").read_text(),
            self.guest.run("cat /proc/net/sockstat"),
        )
        return tuple(int(text.partition("TCP: inuse ")[2].split()[0]) for text in texts)

    def memory(self) -> int:
        """Return the private bytes of all processes of the switch."""
        return sum(proc.private(pid) for pid in self.switch.processes())

    def descriptors(self) -> dict[str, int]:
        """Return how many descriptors each of the gateway's processes has open."""
        return {module: proc.descriptors(pid) for module, pid in self.processes().items()}


@pytest.fixture
def place(namespace: NewNamespace) -> Iterator[Place]:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"needs {DESCRIPTORS} descriptors: raise the hard limit (ulimit -Hn)")
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        host, guest = namespace("host"), namespace("guest")
        directory = stack.enter_context(short_directory())
        switch = Switch(directory, wrap=lambda command: ["ip", "netns", "exec", host.netns, *command])
        stack.callback(switch.kill)
        switch.start("--gateway", *switch.arguments(taps=[f"eth0,netns={guest.netns}"]))
        guest.run(f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up; ip route add default via {GATEWAY}")
        switch.wait_live(2)
        guest.ping(GATEWAY)
        listener = stack.enter_context(guest.inside(lambda: socket.create_server((GUEST, 0), backlog=4096)))
        listener.settimeout(EXCHANGE_S)
        forward = f"tcp:127.0.0.1:0:{GUEST}:{listener.getsockname()[1]}"
        added = switch.command("forward", "add", forward).stdout.split()[1]
        yield Place(switch, host, guest, listener, int(added.split(":")[2]))
        switch.stop()


class End:
    """One end of a connection: says something and that this is all, hears the other one to its end."""

    def __init__(self, sock: socket.socket, says: Callable[[bytes], bytes] | None = None) -> None:
        """Say ``DATA`` at once, or what ``says`` makes of all that was heard."""
        sock.setblocking(False)
        self.sock = sock
        self.heard = bytearray()
        self._says = says
        self._left = memoryview(b"" if says else DATA)
        self._over = False
        """The other end has said all."""
        self.interest = selectors.EVENT_READ | (0 if says else selectors.EVENT_WRITE)

    def step(self, events: int) -> None:
        """Do what is possible. Raises OSError: the connection was reset."""
        if events & selectors.EVENT_READ and not self._over:
            self._hear()
        if self.interest & selectors.EVENT_WRITE:
            with contextlib.suppress(BlockingIOError):
                self._left = self._left[self.sock.send(self._left) :]
            if not self._left:
                self.sock.shutdown(socket.SHUT_WR)
                self.interest &= ~selectors.EVENT_WRITE

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while block := self.sock.recv(1 << 16):
                self.heard += block
            self._over = True
            self.interest &= ~selectors.EVENT_READ
            if self._says is not None:
                self._left = memoryview(self._says(bytes(self.heard)))
                self.interest |= selectors.EVENT_WRITE


def talk(ends: Iterable[End]) -> None:
    """Have all of them say and hear everything. Raises AssertionError if that takes too long."""
    deadline = time.monotonic() + EXCHANGE_S
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end.sock, end.interest, end)
        while left := len(selector.get_map()):
            assert time.monotonic() < deadline, f"{left} ends have not done"
            for key, events in selector.select(1.0):
                end = key.data
                end.step(events)
                if not end.interest:
                    selector.unregister(end.sock)
                elif end.interest != key.events:
                    selector.modify(end.sock, end.interest, end)


def connect(
    place: Place, count: int, stack: contextlib.ExitStack
) -> list[tuple[socket.socket, socket.socket]]:
    """Make so many connections at once; return their ends, the host's and the guest's, in no order."""

    def sockets() -> list[socket.socket]:
        return [stack.enter_context(socket.socket()) for _ in range(count)]

    near = place.host.inside(sockets)
    for sock in near:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", place.port))
    return [(sock, stack.enter_context(place.listener.accept()[0])) for sock in near]


def stall(sock: socket.socket) -> int:
    """Send until nothing on the way takes any more for a while; return how much it was."""
    sock.settimeout(1.0)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += sock.send(bytes(1 << 16))
    return sent


def storm(place: Place) -> None:
    """Have all connections, stall one, let the others say and hear everything, and end them."""
    with contextlib.ExitStack() as stack:
        ((stuck, _),) = connect(place, 1, stack)
        others = connect(place, MANY - 1, stack)
        assert place.descriptors()["gateway"] >= 2 * MANY
        assert stall(stuck) > len(DATA)
        near = [End(one) for one, _ in others]
        far = [End(other, lambda heard: heard[::-1]) for _, other in others]
        talk([*near, *far])
        assert {bytes(end.heard) for end in far} == {DATA}
        assert {bytes(end.heard) for end in near} == {DATA[::-1]}


def test_two_thousand_connections_to_a_guest_with_a_stalled_reader_leave_nothing(place: Place) -> None:
    def calm() -> bool:
        return place.sockets() == sockets

    sockets, before = place.sockets(), place.descriptors()
    warm = 0
    for _ in range(2):
        storm(place)
        wait_for(calm, lambda: f"all sockets to go: {sockets} to begin with, now {place.sockets()}")
        after = place.descriptors()
        assert after["gateway"] <= before["gateway"] + 2 * KEPT_PIPES + BATCH + BATCH // 2
        assert after["gateway.inside"] == before["gateway.inside"]
        grown = place.memory() - warm
        warm = place.memory()
    assert grown < GROWTH


def test_sent_bytes_arrive_without_further_traffic(place: Place) -> None:
    """The gateway must continue by itself with bytes beyond the fair share of one turn."""
    data = bytes(8 << 20)
    with contextlib.ExitStack() as stack:
        ((near, far),) = connect(place, 1, stack)
        near.settimeout(EXCHANGE_S)
        far.settimeout(PATIENCE)
        for _ in range(10):
            sender = threading.Thread(target=near.sendall, args=(data,))
            sender.start()
            arrived = 0
            while arrived < len(data):
                arrived += len(far.recv(1 << 20))
            sender.join()

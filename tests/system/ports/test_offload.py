"""Kernels' TCP from a TAP with its offloads on, to every kind of VM of a running switch.

Where the other end has none, every frame that reaches it is looked at: right to the last checksum, and no
longer than its MTU allows.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.core.model_segments import is_right
from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import running_switch
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, live, port_of

pytestmark = pytest.mark.guest

DATA = random.Random(1).randbytes(4 << 20)
MTU = 1500
ETHERNET = 14
IP = {b"\x08\x00", b"\x86\xdd"}
SO_RCVBUFFORCE = 33
SNIFFED = 64 << 20
RECEIVE_S = 30.0


class End:
    """A namespace with an IPv4 and an IPv6 address."""

    def __init__(self, space: Namespace, number: int) -> None:
        self.space = space
        self.addresses = {4: f"10.12.0.{number}", 6: f"fd12::{number}"}

    def configure(self) -> None:
        """Give the interface its addresses; it is there by now."""
        device = self.space.interface
        self.space.run(f"ip link set {device} mtu {MTU} up")
        self.space.run(f"ip addr add {self.addresses[4]}/24 dev {device}")
        self.space.run(f"ip addr add {self.addresses[6]}/64 dev {device} nodad")

    def listen(self, version: int) -> socket.socket:
        """Return a server's socket."""
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        return self.space.inside(lambda: socket.create_server((self.addresses[version], 0), family=family))

    def connect(self, server: socket.socket) -> socket.socket:
        """Return a connection to it."""
        where = server.getsockname()[:2]
        return self.space.inside(lambda: socket.create_connection(where, timeout=RECEIVE_S))


@contextlib.contextmanager
def connection(source: End, target: End, version: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give both ends of one."""
    with target.listen(version) as server, source.connect(server) as sender:
        receiver, _ = server.accept()
        with receiver:
            receiver.settimeout(RECEIVE_S)
            yield sender, receiver


def transfer(source: End, target: End, version: int) -> bytes:
    """Send DATA and return what arrived."""
    with connection(source, target, version) as (sender, receiver):
        thread = threading.Thread(target=lambda: (sender.sendall(DATA), sender.shutdown(socket.SHUT_WR)))
        thread.start()
        received = b"".join(iter(lambda: receiver.recv(1 << 20), b""))
        thread.join()
    return received


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Switch, dict[str, End]]]:
    """A switch with two TAPs and a pump of every kind of socket."""
    requirements.require(requirements.NAMESPACE)
    names = ("left", "right", "unix", "unixpacket", "unixgram")
    with running_switch() as switch, contextlib.ExitStack() as stack:
        ends = {
            name: End(stack.enter_context(contextlib.closing(Namespace(name))), number)
            for number, name in enumerate(names, 1)
        }
        taps = [f"{ends[name].space.interface},netns={ends[name].space.netns}" for name in names[:2]]
        switch.start(*switch.arguments(qemu=True, bess=True, vfkit=1, taps=taps))
        urls = {"unix": switch.qemu, "unixpacket": switch.bess, "unixgram": switch.vfkit()}
        for number, (kind, path) in enumerate(urls.items(), 1):
            tap = ends[kind].space.open_tap(f"52:54:00:00:12:{number:02x}", mtu=MTU)
            local = switch.vm_dir / kind if kind == "unixgram" else None
            stack.enter_context(contextlib.closing(Pump(tap, f"{kind}://{path}", local)))
        for end in ends.values():
            end.configure()
        for end in list(ends.values())[1:]:
            ends["left"].space.ping(end.addresses[4])
        live(switch, len(names))
        yield switch, ends


def counted(switch: Switch, name: str) -> dict[str, Any]:
    """What is counted of a port."""
    ports: list[dict[str, Any]] = ask(switch, "stats")["ports"]
    return next(port for port in ports if port["name"] == name)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["unix", "unixpacket", "unixgram"])
def test_a_vm_without_offloads_gets_whole_and_right_frames(
    stage: tuple[Switch, dict[str, End]], kind: str, version: int
) -> None:
    switch, ends = stage
    source, target = ends["left"], ends[kind]
    tap = f"{source.space.interface}@{source.space.netns}"
    before = counted(switch, tap)["rx"]
    with target.space.packet_vm() as watcher:
        watcher.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SNIFFED)
        assert transfer(source, target, version) == DATA
        frames = [each for each in watcher.drain() if each[12:14] in IP and len(each) > 1000]
    assert len(frames) >= len(DATA) // MTU
    assert max(map(len, frames)) <= MTU + ETHERNET
    assert all(map(is_right, frames))
    after = counted(switch, tap)
    # The kernel has left the cutting to us: a frame from it was longer than the wire's.
    assert (after["rx"]["bytes"] - before["bytes"]) / (after["rx"]["frames"] - before["frames"]) > 2 * MTU
    assert after["drops"]["offload"] == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["unix", "unixpacket", "unixgram"])
def test_their_frames_arrive(stage: tuple[Switch, dict[str, End]], kind: str, version: int) -> None:
    _, ends = stage
    assert transfer(ends[kind], ends["left"], version) == DATA


@pytest.mark.parametrize("version", [4, 6])
def test_between_taps_frames_stay_large(stage: tuple[Switch, dict[str, End]], version: int) -> None:
    switch, ends = stage
    target = ends["right"]
    tap = f"{target.space.interface}@{target.space.netns}"
    before = counted(switch, tap)["tx"]
    assert transfer(ends["left"], target, version) == DATA
    after = counted(switch, tap)
    assert (after["tx"]["bytes"] - before["bytes"]) / (after["tx"]["frames"] - before["frames"]) > 4 * MTU
    assert after["drops"]["refused"] == 0


def check(receiver: socket.socket, wrong: list[str]) -> None:
    """Receive DATA again and again, to the end, and note where it is not."""
    at = 0
    try:
        while data := receiver.recv(1 << 20):
            while data:
                part = DATA[at : at + len(data)]
                if not data.startswith(part):
                    wrong.append(f"other bytes within {len(part)} from {at}")
                data, at = data[len(part) :], (at + len(part)) % len(DATA)
    except OSError as error:
        wrong.append(str(error))


@pytest.mark.parametrize("victim", ["left", "right"])
def test_a_connection_outlives_either_taps_worker(stage: tuple[Switch, dict[str, End]], victim: str) -> None:
    switch, ends = stage
    space = ends[victim].space
    name = f"{space.interface}@{space.netns}"
    epoch = port_of(switch, name)["worker"]["epoch"]
    stop = threading.Event()
    sent = 0

    def send(sender: socket.socket) -> None:
        nonlocal sent
        while not stop.is_set():
            sender.sendall(DATA)
            sent += len(DATA)
        sender.shutdown(socket.SHUT_WR)

    def next_worker() -> bool:
        port = port_of(switch, name)
        return bool(port["state"] == "live" and port["worker"]["epoch"] > epoch)

    with connection(ends["left"], ends["right"], 4) as (sender, receiver):
        thread = threading.Thread(target=send, args=(sender,))
        wrong: list[str] = []
        received = threading.Thread(target=check, args=(receiver, wrong))
        thread.start()
        received.start()
        try:
            wait_for(lambda: sent, "the first bytes")
            os.kill(port_of(switch, name)["worker"]["pid"], signal.SIGKILL)
            wait_for(next_worker, "another worker")
            before = sent
            wait_for(lambda: sent > before + 2 * len(DATA), "the connection to go on")
        finally:
            stop.set()
            thread.join()
            received.join()
    assert wrong == []

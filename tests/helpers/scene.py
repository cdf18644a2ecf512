"""A switch that is worth a look: VMs that talk at rates of their own, one that is stuck, or a crowd."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from socket import inet_aton

from gateway.lan.frames import Datagram, udp
from tests.helpers.gateway import dhcp_client
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, LinkClosed, build_frame, connect, mac
from tests.helpers.guests.switch import Switch

EVERYBODY = b"\xff" * 6
TICK_S = 0.05
AT_ONCE = 200
"""Frames in a tick from one VM to another, so that none is starved."""


class Scene:
    """VMs by name, and a thread that sends and reads for them."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self._vms: dict[str, FakeVM] = {}
        self._numbers: dict[str, int] = {}
        self._deaf: set[str] = set()
        self._talks: dict[tuple[str, str], tuple[bytes, float]] = {}
        """The frame, and how many of it a tick."""
        self._owed: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, count: int = 1, *, deaf: bool = False) -> None:
        """Attach so many VMs: name, name-2, …; those that are deaf never read."""
        path = self.switch.directory / f"{name}.sock"
        self.switch.command("attach", "--listen-bess", f"unixpacket://{path}", "--name", name)
        for number in range(1, count + 1):
            own = name if number == 1 else f"{name}-{number}"
            vm = connect(f"unixpacket://{path}")
            with self._lock:
                self._numbers[own] = len(self._numbers) + 1
                self._vms[own] = vm
                if deaf:
                    self._deaf.add(own)

    def mac(self, name: str) -> bytes:
        """Return the address of a VM."""
        return mac(self._numbers[name])

    def greet(self) -> None:
        """Have each VM broadcast a frame, so that its address is known."""
        with self._lock:
            for name, vm in self._vms.items():
                vm.offer(build_frame(BROADCAST, self.mac(name), 60))

    def lease(self, name: str) -> None:
        """Ask the gateway for an address, as a guest does when it starts."""
        known = {dhcp_client.NAME: name.encode()}
        with self._lock:
            offered = self._ask_dhcp(name, dhcp_client.request(dhcp_client.DISCOVER, self.mac(name), known))
            server = offered.options[dhcp_client.SERVER]
            known |= {dhcp_client.ASKED: inet_aton(offered.address), dhcp_client.SERVER: server}
            self._ask_dhcp(name, dhcp_client.request(dhcp_client.REQUEST, self.mac(name), known))

    def _ask_dhcp(self, name: str, data: bytes) -> dhcp_client.Reply:
        message = Datagram(EVERYBODY, bytes(4), inet_aton("255.255.255.255"), 68, 67, data)
        self._vms[name].send(udp(self.mac(name), message))

        def is_answer(frame: bytes) -> bool:
            return frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:38] == b"\0\x43\0\x44"

        return dhcp_client.read(self._vms[name].receive_matching(is_answer)[42:])

    def talk(self, talks: Mapping[tuple[str, str], int]) -> None:
        """From now on send so many bytes a second, from one to the other."""
        with self._lock:
            for (source, target), rate in talks.items():
                size = 1514 if rate > 20_000 else 200
                frame = build_frame(self.mac(target), self.mac(source), size)
                self._talks[source, target] = frame, rate * TICK_S / size

    def leave(self, name: str) -> None:
        """Close a VM's connection."""
        with self._lock:
            self._talks = {pair: rate for pair, rate in self._talks.items() if name not in pair}
            self._vms.pop(name).close()

    def tick(self) -> None:
        """Send what is due, and read."""
        with self._lock:
            for pair, (frame, each) in self._talks.items():
                self._owed[pair] = min(self._owed.get(pair, 0.0) + each, AT_ONCE)
                while self._owed[pair] >= 1 and self._vms[pair[0]].offer(frame):
                    self._owed[pair] -= 1
            for name, vm in self._vms.items():
                if name not in self._deaf:
                    with contextlib.suppress(LinkClosed):
                        vm.drain()

    def close(self) -> None:
        """Close all connections."""
        for vm in self._vms.values():
            vm.close()


@contextlib.contextmanager
def playing(switch: Switch) -> Iterator[Scene]:
    """Give a scene whose VMs send and read until the end."""
    made, over = Scene(switch), threading.Event()

    def play() -> None:
        while not over.wait(TICK_S):
            made.tick()

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield made
    finally:
        over.set()
        thread.join()
        made.close()

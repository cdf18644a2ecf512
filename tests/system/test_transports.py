"""Frames across every pair of transports, byte for byte, in order, at the sizes that matter; VMs that return.

The VMs are sockets of this process (``fake_vm``), the switch is a real one. 42 bytes is QEMU's unpadded
ARP, 65,550 the largest frame that libkrun and vmnet send.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, ETHERTYPE, DatagramVM, FakeVM, PacketVM, build_frame, mac
from tests.helpers.guests.fixtures import running_switch
from tests.helpers.guests.netns import MAX_TAP_MTU, Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

SIZES = (14, 42, 60, 1514, 9014, 65_550)
# The kernel sends no more than its largest MTU and an Ethernet header through a TAP; it takes the 65,550.
LARGEST_FROM_TAP = MAX_TAP_MTU + 14
LARGEST_OF_CONNECT = 65_535  # its lengths have 16 bits
SOCKET_KINDS = ("unix", "tcp", "unixpacket", "unixgram", "connect")
HELLO = build_frame(BROADCAST, mac(0), 60)[12:]


def introduce(vms: dict[bytes, FakeVM]) -> None:
    """Have every VM (by its MAC) broadcast until all have heard all: their ports know each other then."""
    heard: dict[bytes, set[bytes]] = {address: {address} for address in vms}

    def everybody() -> bool:
        for address, vm in vms.items():
            vm.send(BROADCAST + address + HELLO)
        for address, vm in vms.items():
            heard[address] |= {frame[6:12] for frame in vm.drain() if frame[12:] == HELLO}
        return all(len(known & vms.keys()) == len(vms) for known in heard.values())

    wait_for(everybody, lambda: f"everybody to hear everybody: {heard}")


class Ports:
    """Two VMs of each kind on one switch, introduced to each other."""

    def __init__(self, vms: dict[str, FakeVM]) -> None:
        self.macs = {name: mac(number) for number, name in enumerate(vms, 1)}
        self.vms = vms
        introduce({self.macs[name]: vm for name, vm in vms.items()})

    def check(self, source: str, target: str, frames: list[bytes]) -> None:
        """Send frames from one VM to another and compare what arrives, in order, byte for byte."""
        ours = ETHERTYPE.to_bytes(2, "big")
        self.vms[target].drain()
        self.vms[source].send(*frames)
        for sent in frames:
            received = self.vms[target].receive_matching(
                lambda frame: frame[:6] == self.macs[target] and frame[12:14] == ours
            )
            assert len(received) == len(sent)
            assert received == sent


def _largest(*kinds: str) -> int:
    return LARGEST_OF_CONNECT if "connect" in kinds else max(SIZES)


def _frames(source: bytes, target: bytes, largest: int) -> list[bytes]:
    return [build_frame(target, source, min(size, largest), seed=size) for size in SIZES]


@pytest.fixture(scope="module")
def sockets() -> Iterator[Ports]:
    with running_switch() as switch, contextlib.ExitStack() as stack:
        switch.start(*switch.arguments(qemu=True, tcp=True, bess=True, vfkit=2, network=True))
        vms: dict[str, FakeVM] = {}
        for kind, number in itertools.product(SOCKET_KINDS, (1, 2)):
            name = f"{kind}-{number}"
            vms[name] = stack.enter_context(switch.connect(kind, name, number))
        yield Ports(vms)


@pytest.mark.parametrize("target", SOCKET_KINDS)
@pytest.mark.parametrize("source", SOCKET_KINDS)
def test_frames_of_all_sizes(sockets: Ports, source: str, target: str) -> None:
    one, other = f"{source}-1", f"{target}-2"
    sockets.check(one, other, _frames(sockets.macs[one], sockets.macs[other], _largest(source, target)))


@pytest.fixture(scope="module")
def with_taps() -> Iterator[Ports]:
    requirements.require(requirements.NAMESPACE)
    with running_switch() as switch, contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(contextlib.closing(Namespace(name))) for name in ("left", "right")]
        taps = [f"{space.interface},netns={space.netns}" for space in spaces]
        switch.start(*switch.arguments(qemu=True, tcp=True, bess=True, vfkit=1, network=True, taps=taps))
        vms: dict[str, FakeVM] = {}
        for number, space in enumerate(spaces, 1):
            space.run(f"ip link set {space.interface} mtu {MAX_TAP_MTU} up")
            vms[f"tap-{number}"] = stack.enter_context(space.packet_vm())
        for kind in SOCKET_KINDS:
            vms[kind] = stack.enter_context(switch.connect(kind))
        yield Ports(vms)


@pytest.mark.guest
@pytest.mark.parametrize("source", [*SOCKET_KINDS, "tap-2"])
def test_frames_of_all_sizes_to_a_tap(with_taps: Ports, source: str) -> None:
    largest = LARGEST_FROM_TAP if source == "tap-2" else _largest(source)
    frames = _frames(with_taps.macs[source], with_taps.macs["tap-1"], largest)
    with_taps.check(source, "tap-1", frames)


@pytest.mark.guest
@pytest.mark.parametrize("target", SOCKET_KINDS)
def test_frames_of_all_sizes_from_a_tap(with_taps: Ports, target: str) -> None:
    frames = _frames(with_taps.macs["tap-1"], with_taps.macs[target], LARGEST_FROM_TAP)
    with_taps.check("tap-1", target, frames)


@pytest.mark.guest
def test_the_kernel_sends_a_tap_no_larger_frames(with_taps: Ports) -> None:
    """``LARGEST_FROM_TAP`` is the kernel's limit, not ours."""
    tap = with_taps.vms["tap-1"]
    assert isinstance(tap, PacketVM)
    with pytest.raises(OSError, match="Message too long"):
        tap.send(build_frame(with_taps.macs["unix"], with_taps.macs["tap-1"], LARGEST_FROM_TAP + 1))


@pytest.mark.parametrize("same_path", [True, False], ids=["same path", "another path"])
@pytest.mark.parametrize("handshake", [True, False], ids=["VFKT", "no VFKT"])
def test_a_datagram_vm_comes_back(switch: Callable[..., Switch], same_path: bool, handshake: bool) -> None:
    running = switch(qemu=True, vfkit=1)
    watcher_mac, vm_mac = mac(1), mac(2)
    with running.connect("unix") as watcher:
        vm = running.connect("unixgram", "vm", handshake=handshake)
        assert isinstance(vm, DatagramVM)
        introduce({watcher_mac: watcher, vm_mac: vm})
        vm.vanish()
        with _connect_again(
            running, "unixgram", "vm" if same_path else "vm-again", handshake=handshake
        ) as again:
            introduce({watcher_mac: watcher, vm_mac: again})
            ports = Ports({"watcher": watcher, "again": again})
            ports.check("watcher", "again", _frames(watcher_mac, vm_mac, max(SIZES)))
            ports.check("again", "watcher", _frames(vm_mac, watcher_mac, max(SIZES)))
            assert not any(frame.startswith(b"VFKT") for frame in watcher.drain())


def _connect_again(switch: Switch, kind: str, name: str, *, handshake: bool = False) -> FakeVM:
    """Connect where another VM was, as soon as the switch knows that it has gone.

    Nothing tells it at once here: the dead VM's process, which is this one, lives on. Until then the kernel
    lets no other socket connect to a socket that is connected.
    """

    def attempt() -> FakeVM | None:
        try:
            return switch.connect(kind, name, handshake=handshake)
        except PermissionError:
            return None

    return wait_for(attempt, "the switch to see that its VM has gone")


@pytest.mark.parametrize("kind", SOCKET_KINDS)
def test_the_answer_to_a_first_frame_arrives(switch: Callable[..., Switch], kind: str) -> None:
    """Like a booting VM: it broadcasts a question as soon as it is there, and another VM answers at once.

    Its worker has just started then, and knows none of the others yet.
    """
    running = switch(qemu=True, tcp=True, bess=True, vfkit=1, network=True)
    server_mac = mac(0xFFFF)
    with running.connect("unix") as server:
        for number in range(1, 6):
            client_mac = mac(number)
            answer = build_frame(client_mac, server_mac, 60, seed=number)
            with _connect_again(running, kind, f"vm-{number}") as client:
                client.send(build_frame(BROADCAST, client_mac, 60, seed=number))
                server.receive_matching(lambda frame: frame[6:12] == client_mac)  # noqa: B023
                server.send(answer)
                assert client.receive() == answer


def test_a_frame_that_a_vm_cannot_be_told_of_is_counted_and_the_next_one_arrives(
    switch: Callable[..., Switch],
) -> None:
    running = switch(qemu=True, network=True)
    with running.connect("unix") as sender, running.connect("connect") as vm:
        introduce({mac(1): sender, mac(2): vm})
        frames = [build_frame(mac(2), mac(1), size, seed=size) for size in (65_536, 65_535)]
        sender.send(*frames)
        assert vm.receive_matching(lambda frame: len(frame) > 60) == frames[1]

        def refused() -> list[int]:
            return [port["drops"]["refused"] for port in running.ports() if port["transport"] == "connect"]

        wait_for(lambda: refused() == [1], "the other one to be counted")

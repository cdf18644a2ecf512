"""Real kernels on one switch: two QEMU guests, a User-Mode Linux, two namespaces with TAPs of the switch.

One boot of each serves the whole file. Every machine talks to every other one, so all pairs of transports
are covered (QEMU's stream and datagram netdevs, BESS seqpacket, TAP), with what a frame switch must carry
untouched: ARP and IPv4, IPv6 neighbour discovery (multicast), TCP with its bursts, 802.1Q tags. Then VMs
die and come back.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.guests import qemu, requirements
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, mac
from tests.helpers.guests.fixtures import Images, running_switch
from tests.helpers.guests.machine import Machine
from tests.helpers.guests.netns import MAX_TAP_MTU, Namespace
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.qemu import QemuGuest
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.uml import UmlGuest
from tests.helpers.guests.waiting import wait_for

pytestmark = pytest.mark.guest

NAMES = ("stream", "dgram", "uml", "left", "right")
PAIRS = list(itertools.combinations(NAMES, 2))
VLAN = 7


class Lab:
    """The switch, the machines on it by name, and how to give one of them another life."""

    def __init__(self, switch: Switch, images: Images, stack: contextlib.ExitStack) -> None:
        self.switch = switch
        self.machines: dict[str, Machine] = {}
        self._images = images
        self._stack = stack

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def start_qemu(self, name: str, netdev: str) -> QemuGuest:
        """Start a QEMU guest in the place of ``name``; it has the MAC that this place always has."""
        assert self._images.vmlinux is not None
        guest = QemuGuest(
            name,
            netdev,
            f"52:54:00:00:00:{_number(name):02x}",
            vmlinux=self._images.vmlinux,
            initramfs=self._images.initramfs,
        )
        self._stack.enter_context(contextlib.closing(guest))
        self.machines[name] = guest
        return guest

    def start_uml(self, name: str) -> UmlGuest:
        """Start the User-Mode Linux."""
        guest = UmlGuest(
            name,
            self.switch.bess,
            f"52:54:00:00:00:{_number(name):02x}",
            initramfs=self._images.initramfs,
            directory=self.switch.vm_dir,
        )
        self._stack.enter_context(contextlib.closing(guest))
        self.machines[name] = guest
        return guest

    def local(self, name: str) -> Path:
        """Return a path for a datagram VM to bind."""
        return self.switch.vm_dir / name


def _number(name: str) -> int:
    return NAMES.index(name) + 1


def _ipv4(name: str) -> str:
    return f"10.11.0.{_number(name)}"


@pytest.fixture(scope="module")
def lab(guest_images: Images) -> Iterator[Lab]:
    """One switch with everything on it."""
    requirements.require((*requirements.NAMESPACE, *requirements.QEMU, *requirements.UML))
    with running_switch() as switch, contextlib.ExitStack() as stack:
        spaces = [stack.enter_context(contextlib.closing(Namespace(name))) for name in ("left", "right")]
        taps = [f"{space.interface},netns={space.netns}" for space in spaces]
        switch.start(*switch.arguments(qemu=True, bess=True, vfkit=1, taps=taps))
        lab = Lab(switch, guest_images, stack)
        lab.machines.update({space.name: space for space in spaces})
        guests = (
            lab.start_qemu("stream", qemu.unix_stream(switch.qemu)),
            lab.start_qemu("dgram", qemu.datagram(switch.vfkit(), lab.local("dgram"))),
            lab.start_uml("uml"),
        )
        for guest in guests:
            guest.wait_ready()
        for name in NAMES:
            lab[name].address(f"{_ipv4(name)}/24")
        yield lab


def test_every_client_is_a_live_port(lab: Lab) -> None:
    # A datagram VM is a port once it has sent something, and every kernel sends when its interface comes up.
    ports = lab.switch.wait_live(len(NAMES))
    assert sorted(port["transport"] for port in ports) == ["bess", "qemu", "tap", "tap", "vfkit"]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ipv4(lab: Lab, one: str, other: str) -> None:
    lab[one].ping(_ipv4(other))
    lab[other].ping(_ipv4(one), size=1472)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_ipv6_link_local(lab: Lab, one: str, other: str) -> None:
    address = lab[other].link_local()
    lab[one].ping(address)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_tcp(lab: Lab, one: str, other: str) -> None:
    lab[other].serve_iperf()
    bits_per_second = lab[one].iperf(_ipv4(other), seconds=1)
    # Not a performance test: what is slower than this is retransmitting, not forwarding.
    assert bits_per_second > 10e6


def test_vlan_between_kernels(lab: Lab) -> None:
    # The host's kernel, whose the namespaces are, may be built without 802.1Q; the guests' kernels have it.
    guests = ("stream", "dgram", "uml")
    for name in guests:
        lab[name].vlan(VLAN, f"10.11.{VLAN}.{_number(name)}/24")
    for one, other in itertools.permutations(guests, 2):
        lab[one].ping(f"10.11.{VLAN}.{_number(other)}", size=1468)


def test_vlan_tag_passes_a_tap(lab: Lab) -> None:
    left, right = lab["left"], lab["right"]
    assert isinstance(left, Namespace)
    assert isinstance(right, Namespace)
    with left.packet_vm() as sender, right.packet_vm() as receiver:
        plain = build_frame(BROADCAST, mac(1), 1514)
        tagged = plain[:12] + b"\x81\x00\x60\x07" + plain[12:]
        _send_until_received(sender, receiver, tagged)


def _send_until_received(sender: FakeVM, receiver: FakeVM, frame: bytes) -> None:
    received: list[bytes] = []

    def arrived() -> bool:
        sender.send(frame)
        received.extend(receiver.drain())
        return frame in received

    wait_for(arrived, "the frame to arrive as it was sent")


def test_stream_vm_restarts(lab: Lab) -> None:
    lab["left"].ping(_ipv4("stream"))
    _restart(lab, "stream", lambda: qemu.unix_stream(lab.switch.qemu))
    lab.switch.wait_live(len(NAMES))


def test_datagram_vm_restarts_on_the_same_path(lab: Lab) -> None:
    lab["left"].ping(_ipv4("dgram"))
    _restart(lab, "dgram", lambda: qemu.datagram(lab.switch.vfkit(), lab.local("dgram")))
    lab.switch.wait_live(len(NAMES))


def test_datagram_vm_restarts_on_another_path(lab: Lab) -> None:
    _restart(lab, "dgram", lambda: qemu.datagram(lab.switch.vfkit(), lab.local("dgram-again")))
    lab.switch.wait_live(len(NAMES))


def _restart(lab: Lab, name: str, netdev: Callable[[], str]) -> None:
    """Kill a QEMU guest, boot one in its place, and see that the network has it back."""
    guest = lab[name]
    assert isinstance(guest, QemuGuest)
    guest.close()
    again = lab.start_qemu(name, netdev()).wait_ready()
    again.address(f"{_ipv4(name)}/24")
    again.ping(_ipv4("uml"))
    lab["left"].ping(_ipv4(name))
    lab["right"].ping(again.link_local())


def test_the_largest_ip_packets_cross_socket_transports(
    namespace: Callable[[str], Namespace], switch: Callable[..., Switch]
) -> None:
    """Namespaces behind VM sockets, with the largest MTU a TAP can have, which the kernel fills."""
    running = switch(qemu=True, bess=True, vfkit=1)
    urls = {
        "stream": f"unix://{running.qemu}",
        "seqpacket": f"unixpacket://{running.bess}",
        "datagram": f"unixgram://{running.vfkit()}",
    }
    with contextlib.ExitStack() as stack:
        spaces = {name: namespace(name) for name in urls}
        for number, (name, url) in enumerate(urls.items(), 1):
            tap = spaces[name].open_tap(f"52:54:00:00:01:{number:02x}", mtu=MAX_TAP_MTU)
            pump = Pump(tap, url, running.vm_dir / f"pump-{number}")
            stack.enter_context(contextlib.closing(pump))
            spaces[name].address(f"10.12.0.{number}/24")
            spaces[name].serve_iperf()
        for (_, one), (number, other) in itertools.permutations(enumerate(spaces.values(), 1), 2):
            one.ping(f"10.12.0.{number}", size=MAX_TAP_MTU - 28)
            assert one.iperf(f"10.12.0.{number}", seconds=1) > 10e6, (one, other)

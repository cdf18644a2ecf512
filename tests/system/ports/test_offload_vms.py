"""VMs as krunkit and libkrun run them with offloading on, and every other kind of VM, on one switch.

Each pair talks both ways, as real kernels do: and no receiver sees a checksum that is wrong.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.helpers.core.model_segments import Flow
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.fixtures import Images, short_directory
from tests.helpers.guests.krunkit import Krunkit
from tests.helpers.guests.machine import IPERF_PORT, Machine
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.qemu import QemuGuest, unix_stream
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.uml import UmlGuest
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, port_of

pytestmark = pytest.mark.guest

NAMES = ("krun", "same", "stream", "connect", "plain", "qemu", "uml", "tap")
PARTNERS = NAMES[1:]
UNASKED = "unasked"
ROUTER, HOST = "192.168.127.1", "192.168.127.254"
NAMED_S = 30.0
ARRIVES = 1 << 20
"""Of 8 MiB that are sent: iperf3 stops the clock when the last has been written."""
THROUGH_THE_GATEWAY = "-n 32M"
"""Kernels and gateway may have half of it under way then."""


def number(name: str) -> int:
    return 11 + (*NAMES, UNASKED).index(name)


def ipv4(name: str) -> str:
    return f"192.168.127.{number(name)}"


def ipv6(name: str) -> str:
    return f"fd12::{number(name)}"


def hardware(name: str) -> str:
    return f"52:54:00:00:13:{number(name):02x}"


class Lab:
    """The switch with its gateway, in a namespace that is the host, and the machines on it."""

    def __init__(self, switch: Switch, host: Namespace) -> None:
        self.switch, self.host = switch, host
        self.machines: dict[str, Machine] = {}

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def attach(self, name: str, transport: str, url: str, **settings: object) -> str:
        """Add a listener whose first VM has that name and these settings; return its URL."""
        answer = ask(self.switch, "attach", transport=transport, url=url, name=name, settings=settings)
        return str(answer["url"])

    def krunkit(self, name: str, transport: str, scheme: str, **settings: object) -> Krunkit:
        """Start an imitation of krunkit; the caller closes it."""
        url = f"{scheme}://{self.switch.directory / name}"
        self.attach(name, transport, url, **settings)
        scheme = "connect" if transport == "connect" else scheme
        local = self.switch.vm_dir / name if scheme == "unixgram" else None
        return Krunkit(name, f"{scheme}://{self.switch.directory / name}", hardware(name), local)


@pytest.fixture(scope="module")
def lab(guest_images: Images) -> Iterator[Lab]:
    requirements.require(
        (*requirements.NAMESPACE, *requirements.QEMU, *requirements.UML, *requirements.GATEWAY)
    )
    assert guest_images.vmlinux is not None
    with contextlib.ExitStack() as stack:
        keep = stack.enter_context
        host, tap, plain = (keep(contextlib.closing(Namespace(name))) for name in ("host", "tap", "plain"))
        directory = keep(short_directory())
        switch = Switch(directory, wrap=partial(inside, host))
        stack.callback(switch.kill)
        forward = f"tcp:127.0.0.1:{IPERF_PORT + 1}:{ipv4('krun')}:{IPERF_PORT}"
        taps = [f"{tap.interface},netns={tap.netns}"]
        listeners = switch.arguments(qemu=True, bess=True, vfkit=1, taps=taps)
        switch.start("--gateway", "--forward", forward, *listeners)
        lab = Lab(switch, host)
        qemu = QemuGuest(
            "qemu",
            unix_stream(switch.qemu),
            hardware("qemu"),
            vmlinux=guest_images.vmlinux,
            initramfs=guest_images.initramfs,
        )
        keep(contextlib.closing(qemu))
        uml = UmlGuest(
            "uml", switch.bess, hardware("uml"), initramfs=guest_images.initramfs, directory=switch.vm_dir
        )
        keep(contextlib.closing(uml))
        url, local = f"unixgram://{switch.vfkit()}", switch.vm_dir / "plain"
        keep(contextlib.closing(Pump(plain.open_tap(hardware("plain")), url, local)))
        lab.machines |= {"plain": plain, "tap": tap, "qemu": qemu, "uml": uml}
        for name, transport, scheme in (
            ("krun", "vfkit", "unixgram"),
            ("same", "vfkit", "unixgram"),
            ("stream", "qemu", "unix"),
            ("connect", "connect", "unix"),
        ):
            machine = lab.krunkit(name, transport, scheme, offload="tso")
            lab.machines[name] = keep(contextlib.closing(machine))
        for guest in (qemu, uml):
            guest.wait_ready()
        for name in NAMES:
            lab[name].address(f"{ipv4(name)}/24")
            lab[name].run(f"ip -6 addr add {ipv6(name)}/64 dev {lab[name].interface}")
        switch.wait_live(len(NAMES) + 1)
        yield lab
        switch.stop()


def inside(host: Namespace, command: list[str]) -> list[str]:
    return ["ip", "netns", "exec", host.netns, *command]


@pytest.fixture
def all_sums_right(lab: Lab) -> Iterator[None]:
    before = {name: lab[name].wrong_sums() for name in NAMES}
    host = lab.host.wrong_sums()
    yield
    assert {name: lab[name].wrong_sums() for name in NAMES} == before
    assert lab.host.wrong_sums() == host


@pytest.mark.usefixtures("all_sums_right")
@pytest.mark.parametrize("partner", PARTNERS)
def test_every_kind_of_vm_is_talked_to(lab: Lab, partner: str) -> None:
    krun, other = lab["krun"], lab[partner]
    krun.ping(ipv4(partner), size=1472)
    wait_for(lambda: reaches(krun, ipv6(partner)), f"krun to ping {ipv6(partner)}")
    for server, client in ((other, krun), (krun, other)):
        server.serve_iperf()
        for address in (ipv4, ipv6):
            end = client.run_iperf(address(server.name), "-n 8M")
            assert end["sum_received"]["bytes"] >= ARRIVES
        end = client.run_iperf(ipv4(server.name), "-u -b 5M -n 1M -l 1400")
        assert end["sum"]["lost_packets"] * 2 <= end["sum"]["packets"]


def reaches(machine: Machine, address: str) -> bool:
    return ", 0% packet loss" in machine.run(f"busybox ping -6 -c 1 -W 1 {address} || true")


@pytest.mark.usefixtures("all_sums_right")
def test_the_host_and_the_gateway_are_talked_to(lab: Lab) -> None:
    krun = lab["krun"]
    krun.ping(ROUTER)
    krun.serve_iperf()
    lab.host.serve_iperf()
    assert "192.168.127.1" in krun.run(f"busybox nslookup gateway.containers.internal {ROUTER}")
    assert krun.run_iperf(HOST, THROUGH_THE_GATEWAY)["sum_received"]["bytes"] >= ARRIVES
    end = lab.host.run_iperf(f"127.0.0.1 -p {IPERF_PORT + 1}", THROUGH_THE_GATEWAY)
    assert end["sum_received"]["bytes"] >= ARRIVES


def test_inferred_headers_leave_no_trace_in_the_counters(lab: Lab) -> None:
    """Runs after all others: no frame was dropped as senseless, and no VM was sent a frame that it does not
    accept."""
    for port in ask(lab.switch, "stats")["ports"]:
        assert port["drops"]["offload"] == port["drops"]["refused"] == port["drops"]["stale_ring"] == 0
        assert port["drops"]["runt"] == port["drops"]["oversize"] == 0


def test_a_container_behind_such_a_vm_is_talked_to(lab: Lab) -> None:
    """Its packets are cut to the MTU on their way to the VM, which could forward no larger ones."""
    krun, same = lab["krun"], lab["same"]
    assert isinstance(same, Namespace)
    with contextlib.closing(Namespace("container")) as container:
        same.run(f"ip link add to type veth peer name eth0 netns {container.netns}")
        same.run("ip addr add 10.88.0.1/24 dev to; ip link set to up; echo 1 >/proc/sys/net/ipv4/ip_forward")
        container.address("10.88.0.2/24")
        container.run("ip route add default via 10.88.0.1")
        krun.run(f"ip route add 10.88.0.0/24 via {ipv4('same')}")
        before = krun.wrong_sums(), container.wrong_sums()
        for server, client, address in ((container, krun, "10.88.0.2"), (krun, container, ipv4("krun"))):
            server.serve_iperf()
            assert client.run_iperf(address, "-n 8M")["sum_received"]["bytes"] >= ARRIVES
        assert (krun.wrong_sums(), container.wrong_sums()) == before


def test_a_tagged_frame_is_finished(lab: Lab) -> None:
    """The kernel of the namespaces has no VLANs, so a program gives the frame to the VM's kernel."""
    krun, address = lab["krun"], mac(1)
    assert isinstance(krun, Namespace)
    source = bytes.fromhex(hardware("krun").replace(":", ""))
    flow = Flow(b"t" * 5000, 1460, tags=(7,), source=source, destination=address)
    url = f"unixgram://{lab.switch.vfkit(2)}"
    lab.attach("probe", "vfkit", url)
    with connect(url, local=lab.switch.vm_dir / "probe") as probe, krun.offload_vm() as sender:
        probe.send(build_frame(BROADCAST, address))
        sender.receive_matching(lambda each: each[16:22] == address)
        sender.send(flow.unfinished())
        got = [probe.receive_matching(lambda each: each[12:14] == b"\x81\0") for _ in flow.finished()]
        assert got == flow.finished()
    ask(lab.switch, "detach", target=url)


def test_a_vm_whose_port_is_not_set_for_it_is_named(lab: Lab) -> None:
    with contextlib.closing(lab.krunkit(UNASKED, "vfkit", "unixgram")) as vm:
        vm.address(f"{ipv4(UNASKED)}/24")
        vm.ping(ipv4("krun"))
        vm.run(f"busybox nslookup gateway.containers.internal {ROUTER} >/dev/null 2>&1 || true")
        began = time.monotonic()
        vm.start(f"busybox nc {ipv4('krun')} 80")
        (note,) = wait_for(lambda: port_of(lab.switch, UNASKED).get("notes"), "the port to be named")
        assert time.monotonic() - began < NAMED_S
        assert "`supervisor set unasked offload=tso`" in note
        assert f"(unasked): {note}" in lab.switch.log()
        ask(lab.switch, "set", target=UNASKED, settings={"offload": "tso"})
        assert "192.168.127.1" in vm.run(f"busybox nslookup gateway.containers.internal {ROUTER}")
        assert port_of(lab.switch, UNASKED)["notes"] == []
    ask(lab.switch, "detach", target=f"unixgram://{lab.switch.directory / UNASKED}")

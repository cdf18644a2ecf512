"""Real front-ends of vhost-user on one switch: QEMU in three forms, User-Mode Linux, and a TAP beside them.

One boot of each serves the whole file. The modern QEMU listens itself and is dialled, the others connect.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import Images, running_switch
from tests.helpers.guests.machine import Machine
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.qemu import VHOST_BOARDS, QemuGuest, vhost_user
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.uml import UmlGuest
from tests.helpers.guests.waiting import wait_for

pytestmark = pytest.mark.guest

QEMUS = ("legacy", "modern", "q35")
NAMES = (*QEMUS, "uml", "tap")
PAIRS = list(itertools.combinations(NAMES, 2))


class Lab:
    """The switch and the machines on it by name."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.machines: dict[str, Machine] = {}

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def workers(self) -> dict[int, int]:
        """Process of each vhost port's worker, by the port's number."""
        ports = self.switch.ports()
        return {port["port"]: port["worker"]["pid"] for port in ports if port["transport"] == "vhost"}

    def drops(self, what: str) -> int:
        return sum(int(port["drops"][what]) for port in self.switch.ports())


def _mac(name: str) -> str:
    return f"52:54:00:00:01:{NAMES.index(name) + 1:02x}"


def _ipv4(name: str) -> str:
    return f"10.13.0.{NAMES.index(name) + 1}"


@pytest.fixture(scope="module")
def lab(guest_images: Images) -> Iterator[Lab]:
    requirements.require((*requirements.NAMESPACE, *requirements.QEMU, *requirements.UML))
    assert guest_images.vmlinux is not None
    with running_switch() as switch, contextlib.ExitStack() as stack:
        space = stack.enter_context(contextlib.closing(Namespace("tap")))
        dialled = switch.vm_dir / "dialled.sock"
        tap = f"{space.interface},netns={space.netns}"
        switch.start(*switch.arguments(vhost=True, taps=[tap]), "--dial-vhost", f"unix://{dialled}")
        lab = Lab(switch)
        lab.machines["tap"] = space
        for name in QEMUS:
            listens = name == "modern"
            chardev, netdev = vhost_user(dialled if listens else switch.vhost, listens=listens)
            lab.machines[name] = QemuGuest(
                name,
                netdev,
                _mac(name),
                vmlinux=guest_images.vmlinux,
                initramfs=guest_images.initramfs,
                board=VHOST_BOARDS[name],
                chardev=chardev,
            )
            stack.callback(lab.machines[name].close)  # type: ignore[attr-defined]
        lab.machines["uml"] = UmlGuest(
            "uml",
            switch.vhost,
            _mac("uml"),
            initramfs=guest_images.initramfs,
            directory=switch.vm_dir,
            vhost=True,
        )
        stack.callback(lab.machines["uml"].close)  # type: ignore[attr-defined]
        for name in (*QEMUS, "uml"):
            lab[name].wait_ready()  # type: ignore[attr-defined]
        for name in NAMES:
            lab[name].address(f"{_ipv4(name)}/24")
        yield lab


def test_every_guest_is_a_live_port(lab: Lab) -> None:
    ports = lab.switch.wait_live(len(NAMES))
    assert sorted(port["transport"] for port in ports) == ["tap", "vhost", "vhost", "vhost", "vhost"]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_pings_of_every_size_pass(lab: Lab, one: str, other: str) -> None:
    lab[one].ping(_ipv4(other))
    lab[other].ping(_ipv4(one), size=1472)


@pytest.mark.parametrize(("one", "other"), [("legacy", "modern"), ("q35", "tap"), ("tap", "uml")])
def test_tcp_passes(lab: Lab, one: str, other: str) -> None:
    lab[other].serve_iperf()
    # Not a performance test: what is slower than this is retransmitting, not forwarding.
    assert lab[one].iperf(_ipv4(other), seconds=1) > 10e6
    for what in ("offload", "runt", "oversize"):
        assert lab.drops(what) == 0


def test_a_guest_does_not_notice_that_its_worker_is_killed(lab: Lab) -> None:
    before = {name: lab[name].run("cat /sys/class/net/eth0/carrier_changes") for name in QEMUS}
    for pid in lab.workers().values():
        os.kill(pid, signal.SIGKILL)
    for one, other in (("legacy", "modern"), ("q35", "uml"), ("uml", "tap")):
        _ping_again(lab[one], _ipv4(other))
    lab.switch.wait_live(len(NAMES))
    after = {name: lab[name].run("cat /sys/class/net/eth0/carrier_changes") for name in QEMUS}
    assert after == before


def _ping_again(machine: Machine, address: str) -> None:
    """Frames under way when a worker is killed may be lost; the next one is not."""
    wait_for(
        lambda: "0 packets received" not in machine.run(f"busybox ping -c 1 -W 2 {address}; true"), "a ping"
    )


@pytest.mark.parametrize("name", QEMUS)
def test_a_driver_that_is_unbound_and_bound_again_is_connected_again(lab: Lab, name: str) -> None:
    guest = lab[name]
    device = guest.run("readlink /sys/class/net/eth0/device").strip().rpartition("/")[2]
    driver = "/sys/bus/virtio/drivers/virtio_net"
    guest.run(f"echo {device} > {driver}/unbind")
    assert lab.drops("runt") == 0
    guest.run(f"echo {device} > {driver}/bind")
    wait_for(lambda: "eth0" in guest.run("ls /sys/class/net"), "the interface to be back")
    guest.address(f"{_ipv4(name)}/24")
    _ping_again(guest, _ipv4("tap"))
    lab["tap"].ping(_ipv4(name))


def test_a_supervisor_that_is_killed_is_replaced_and_keeps_the_sessions(lab: Lab) -> None:
    workers = lab.workers()
    assert lab.switch.process is not None
    arguments = lab.switch.process.args[6:]  # type: ignore[index]
    lab.switch.process.kill()
    lab.switch.process.wait()
    lab["legacy"].ping(_ipv4("modern"))
    lab.switch.start(*arguments)
    lab.switch.wait_live(len(NAMES))
    assert lab.workers() == workers
    # And what a worker said before is known to this supervisor, too.
    for pid in workers.values():
        os.kill(pid, signal.SIGKILL)
    for one, other in (("legacy", "modern"), ("q35", "uml")):
        _ping_again(lab[one], _ipv4(other))
    assert lab.workers().keys() == workers.keys()

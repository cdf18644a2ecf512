"""Guards on a real switch with a gateway: on for every VM, by lease, by setting, and said in the log once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from tests.helpers.core import claims
from tests.helpers.core.claims import NA, RA, arp, icmpv6, ipv4, ipv6, tagged, udp
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, connect, mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.probes import kill_supervisor
from tests.system.gateway.test_leases import guest_of

StartSwitch = Callable[..., Switch]
ME = mac(0xBAD)
MARKS = itertools.count(1)
FORGERIES = {
    "router": ipv6(ME, icmpv6(RA)),
    "router in two tags": tagged(ipv6(ME, icmpv6(RA)), b"\x88\xa8\0\5", b"\x81\0\0\6"),
    "router in headers": claims.extended(ME, icmpv6(RA), claims.HOP_BY_HOP, claims.OPTIONS),
    "router in a fragment": claims.extended(ME, icmpv6(RA), claims.FRAGMENT),
    "server": ipv4(ME, udp(68)),
    "server of IPv6": ipv6(ME, udp(546, 547), next_=claims.UDP),
    "the gateway's address": arp(ME, "192.168.127.1", "192.168.127.1"),
    "the host alias": arp(ME, "192.168.127.254", "192.168.127.9", reply=True),
    "the gateway's MAC": arp(ME, "192.168.127.66", "192.168.127.9", mac=bytes.fromhex("5a94efe40cdd")),
    "the gateway's link-local address": ipv6(ME, icmpv6(NA, "fe80::5894:efff:fee4:cdd")),
}


class Lan:
    """A switch, a VM that forges, and one that listens."""

    def __init__(self, running: Switch) -> None:
        self.running = running
        self.forger = running.connect("unix")
        self.forger.send(build_frame(BROADCAST, ME, 60))
        self.witness = running.connect("unix")
        self.witness.send(build_frame(BROADCAST, mac(2), 60))
        wait_for(lambda: len(self.names()) == 2, "both VMs")
        self.name = self.names()[0]
        hear(self.forger, self.witness)

    def names(self) -> list[str]:
        ports = self.running.ports()
        return [port["name"] for port in ports if port["transport"] == "qemu" and port["state"] == "live"]

    def heard(self, frame: bytes) -> bool:
        """Whether the witness hears a frame of the forger."""
        self.forger.send(frame)
        return frame in hear(self.forger, self.witness)

    def guarded(self) -> int:
        ports = self.running.json("stats")["ports"]
        found: int = next(port["drops"]["guarded"] for port in ports if port["name"] == self.name)
        return found


def hear(speaker: FakeVM, listener: FakeVM) -> list[bytes]:
    """Return what the listener gets before a mark that the speaker sends now, on the same way."""
    got: list[bytes] = []
    mark = build_frame(BROADCAST, ME, 60, seed=next(MARKS))

    def marked() -> bool:
        speaker.send(mark)
        got.extend(listener.drain())
        return mark in got

    wait_for(marked, "a broadcast to arrive")
    return got


@pytest.fixture(autouse=True)
def _needs() -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))


def test_no_vm_passes_for_the_gateway(switch: StartSwitch) -> None:
    lan = Lan(switch("--gateway", qemu=True))
    began = time.monotonic()
    for number, (name, forgery) in enumerate(FORGERIES.items(), start=1):
        assert not lan.heard(forgery), name
        wait_for(lambda number=number: lan.guarded() == number, f"{name} to be counted")
    log = lan.running.log()
    assert f"({lan.name}): its guard drops a router advertisement or redirect, sent from {ME.hex(':')}" in log
    assert log.count("its guard drops") <= 1 + (time.monotonic() - began), "one a second"
    assert "guarded" in lan.running.command("stats").stdout


def test_a_lease_is_its_ports_alone(switch: StartSwitch, namespace: Callable[[str], Namespace]) -> None:
    lan = Lan(switch("--gateway", qemu=True))
    guest = guest_of(lan.running, namespace, 1)
    lan.running.wait_live(4)
    address = guest.lease()[0]
    claim = arp(ME, address, address)
    wait_for(lambda: not lan.heard(claim), "the lease to be known to guards")
    wait_for(lambda: lan.guarded() > 0, "the drop to be counted")
    assert lan.heard(arp(ME, "192.168.127.200", "192.168.127.200")), "an address without a lease"
    # The gateway is replaced, and goes on to know the lease and the ports.
    assert not lan.heard(FORGERIES["the gateway's address"])
    kill_supervisor(lan.running)
    assert not lan.heard(FORGERIES["the gateway's address"])
    assert not lan.heard(claim)
    lan.running.start("--gateway", *lan.running.arguments(qemu=True))
    lan.running.wait_live(4)
    assert not lan.heard(FORGERIES["the gateway's address"])
    wait_for(lambda: not lan.heard(claim), "the lease to be known again")


def test_a_guard_is_a_setting_that_can_be_changed_while_frames_pass(switch: StartSwitch) -> None:
    lan = Lan(switch("--gateway", qemu=True))
    running, forgery = lan.running, FORGERIES["router"]
    assert settings(running, lan.name)["guard"] is True
    assert settings(running, "gateway")["guard"] is False
    assert not lan.heard(forgery)
    assert "guard=false" in running.command("set", lan.name, "guard=false").stdout
    assert lan.heard(forgery)
    assert "guard=true" in running.command("set", lan.name, "guard=true").stdout
    assert not lan.heard(forgery)
    refused = running.command("set", lan.name, "guard=maybe", check=False)
    assert (refused.returncode, "neither true nor false" in refused.stderr) == (2, True)


@pytest.mark.parametrize(("flags", "guarded"), [((), False), (("--guard",), True), (("--no-guard",), False)])
def test_without_a_gateway_a_vm_may_be_the_router_by_default(
    switch: StartSwitch, flags: tuple[str, ...], *, guarded: bool
) -> None:
    running = switch(qemu=True)
    path = running.directory / "lab.sock"
    running.command("attach", "--listen-qemu", f"unix://{path}", "--name", "lab", *flags)
    router = running.connect("unix")
    with connect(f"unix://{path}") as vm:
        wait_for(lambda: "lab" in [port["name"] for port in running.ports()], "the VM")
        assert settings(running, "lab")["guard"] is guarded
        vm.send(FORGERIES["router"])
        heard = hear(vm, router)
        assert (FORGERIES["router"] in heard) is not guarded


def settings(running: Switch, name: str) -> dict[str, object]:
    found: dict[str, object] = running.json("show", name)["settings"]
    return found

"""No frame is sent to a VM that is longer than its port says: some VMs never receive again after one.

A libkrun VM has buffers of 1,518 bytes. A longer frame uses up all of them and is tried again for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.helpers.core.model_segments import Flow
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, live, name_of, port_of, stats_of

StartSwitch = Callable[..., Switch]
KINDS = {"unix": "qemu", "unixpacket": "bess", "unixgram": "vfkit", "connect": "connect"}
BUFFER = 1518
JUMBO = 9014


class Wedged(Exception):  # noqa: N818 - what happens to such a VM
    """A frame came that the VM has no buffer for."""


def take(vm: FakeVM, wanted: bytes) -> None:
    """Receive up to that frame, as a VM does that has short buffers."""

    def fits(frame: bytes) -> bool:
        if len(frame) > BUFFER:
            raise Wedged(f"{len(frame)} bytes")
        return frame == wanted

    vm.receive_matching(fits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jumbo_frame_costs_a_vm_with_short_buffers_nothing(switch: StartSwitch, kind: str) -> None:
    running = switch(qemu=True, bess=True, vfkit=1, network=True)
    with running.connect(kind) as vm, running.connect("unix") as jumbo:
        for number, each in enumerate((vm, jumbo), 1):
            each.send(build_frame(BROADCAST, mac(number)))
        live(running, 2)
        wait_for(lambda: len(ask(running, "macs")["macs"]) == 2, "addresses to be known")
        name = name_of(running, mac(1))
        ask(running, "set", target=name, settings={"mtu": 1500})
        lost = 0
        for number in range(50):
            for destination in (mac(1), BROADCAST):
                after = build_frame(destination, mac(2), BUFFER - number % 2, seed=number)
                jumbo.send(build_frame(destination, mac(2), JUMBO), after)
                lost += 1
                take(vm, after)
        wait_for(lambda: stats(running, name)["refused"] == lost, f"{lost} to be counted")
        assert port_of(running, name)["notes"] == [
            f"{lost} frames to it were refused: "
            "they were longer than its MTU of 1500, or than its socket takes"
        ]
        ask(running, "set", target=name, settings={"mtu": "none"})
        long = build_frame(mac(1), mac(2), JUMBO, seed=99)
        jumbo.send(long)
        vm.receive_matching(lambda frame: frame == long)


def stats(running: Switch, name: str) -> dict[str, int]:
    ports = ask(running, "stats")["ports"]
    drops: dict[str, int] = next(port["drops"] for port in ports if port["name"] == name)
    return drops


@pytest.mark.guest
def test_tcp_of_a_jumbo_tap_is_cut_to_the_mtu(
    switch: StartSwitch, namespace: Callable[[str], Namespace]
) -> None:
    """The TAP's header has the size of segments, so no byte is lost."""
    requirements.require(requirements.NAMESPACE)
    space = namespace("jumbo")
    running = switch(vfkit=1, taps=[f"{space.interface},netns={space.netns}"])
    space.run(f"ip link set {space.interface} mtu 9000 up")
    with contextlib.ExitStack() as stack:
        vm = stack.enter_context(running.connect("unixgram"))
        vm.send(build_frame(BROADCAST, mac(1)))
        live(running, 2)
        wait_for(lambda: mac(1).hex(":") in str(ask(running, "macs")), "its address to be known")
        name = name_of(running, mac(1))
        ask(running, "set", target=name, settings={"mtu": 1500})
        flow = Flow(b"j" * 30_000, 8948, options=bytes(12), destination=mac(1), source=mac(2))
        kernel = stack.enter_context(space.offload_vm())
        kernel.send(flow.unfinished())
        expected = flow._replace(mss=BUFFER - 66).finished()
        got = [vm.receive_matching(lambda frame: frame[6:12] == mac(2)) for _ in expected]
        assert got == expected
        assert stats_of(running, "vfkit")["drops"]["refused"] == 0

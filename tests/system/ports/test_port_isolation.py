"""Isolated ports, seen from outside: they exchange frames only with the ports that they name."""

from __future__ import annotations

from collections.abc import Callable

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.ports import attach, gets_through, meet, port
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

StartSwitch = Callable[..., Switch]
MULTICAST = b"\x01\x00\x5e\x00\x00\x01"


def test_isolated_ports_reach_only_the_ports_that_they_name_also_by_floods(switch: StartSwitch) -> None:
    running = switch()
    vms = {name: attach(running, name) for name in ("gateway", "one", "two")}
    numbers = {name: number for number, name in enumerate(vms, 1)}
    running.wait_live(3)
    meet({numbers[name]: vm for name, vm in vms.items()})
    for name in ("one", "two"):
        running.command("set", name, "isolated=true", "reach=gateway")

    def passes(source: str, target: str, dst: bytes, size: int) -> bool:
        return gets_through(vms[source], vms[target], build_frame(dst, mac(numbers[source]), size))

    wait_for(lambda: not passes("one", "two", BROADCAST, 100), "the isolation to be in force")
    wait_for(lambda: not passes("two", "one", BROADCAST, 100), "the isolation to be in force")
    for vm in vms.values():
        vm.drain()
    for source, target in (("one", "two"), ("two", "one")):
        before = port(running, source)["drops"]["isolated"]
        for dst in (BROADCAST, MULTICAST, mac(99), mac(numbers[target])):
            vms[source].send(build_frame(dst, mac(numbers[source]), 200))
        wait_for(
            lambda source=source, before=before: port(running, source)["drops"]["isolated"] == before + 1,  # type: ignore[misc]
            "the frame to the known address to be dropped and counted",
        )
        for a, b in ((source, "gateway"), ("gateway", source)):
            wait_for(lambda a=a, b=b: passes(a, b, BROADCAST, 300), "floods to the gateway and back")  # type: ignore[misc]
            wait_for(lambda a=a, b=b: passes(a, b, mac(numbers[b]), 400), "frames to and fro")  # type: ignore[misc]
        assert not [frame for frame in vms[target].drain() if frame[6:12] == mac(numbers[source])]
    # Both have to name each other.
    running.command("set", "one", "reach=gateway,two")
    vms["one"].send(*[build_frame(BROADCAST, mac(numbers["one"]), 500)] * 3)
    wait_for(lambda: passes("one", "gateway", BROADCAST, 300), "the gateway to be reached")
    assert not [frame for frame in vms["two"].drain() if frame[6:12] == mac(numbers["one"])]
    running.command("set", "two", "reach=one")
    wait_for(lambda: passes("one", "two", BROADCAST, 600), "floods between those that name each other")
    wait_for(
        lambda: passes("two", "one", mac(numbers["one"]), 600), "frames between those that name each other"
    )
    wait_for(lambda: not passes("gateway", "two", BROADCAST, 600), "the gateway to be out of reach")
    running.command("set", "two", "isolated=no", "reach=")
    wait_for(lambda: passes("gateway", "two", BROADCAST, 700), "everybody to be reached again")


def test_a_port_that_joins_later_is_isolated_from_its_first_frame(switch: StartSwitch) -> None:
    running = switch()
    other, gateway = attach(running, "other"), attach(running, "gateway")
    running.wait_live(2)
    late = attach(running, "late", "--isolated", "--reach", "gateway")
    first = build_frame(BROADCAST, mac(3), 70)
    late.send(first)
    gateway.receive_matching(lambda frame: frame == first)
    mark = build_frame(BROADCAST, mac(2), 80)
    for _ in range(2):
        gateway.send(mark)
        assert other.receive_matching(lambda frame: frame in (mark, first)) == mark

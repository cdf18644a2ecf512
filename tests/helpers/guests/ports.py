"""Ports as tests of settings need them: a VM behind a listener of its own, and what the switch says of it."""

from __future__ import annotations

from typing import Any

from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, connect, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

A_RING_FULL = 500
"""Frames of 1,514 bytes. Some are dropped if they come at once; a socket is full after two such rings."""


def attach(switch: Switch, name: str, *settings: str) -> FakeVM:
    """Attach a listener with settings and one VM to it."""
    path = switch.directory / f"{name}.sock"
    switch.command("attach", "--listen-bess", f"unixpacket://{path}", "--name", name, *settings)
    return connect(f"unixpacket://{path}")


def port(switch: Switch, name: str) -> dict[str, Any]:
    return next(port for port in switch.ports() if port["name"] == name)


def settings(switch: Switch, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = switch.json("show", name)
    assert answer["name"] == name
    shown: dict[str, Any] = answer["settings"]
    return shown


def meet(vms: dict[int, FakeVM]) -> None:
    """Have every VM, by the number of its address, broadcast until all have heard all."""
    heard: dict[int, set[bytes]] = {number: {mac(number)} for number in vms}

    def everybody() -> bool:
        for number, vm in vms.items():
            vm.send(build_frame(BROADCAST, mac(number)))
        for number, vm in vms.items():
            heard[number] |= {frame[6:12] for frame in vm.drain()}
        return all(len(known) >= len(vms) for known in heard.values())

    wait_for(everybody, "everybody to hear everybody")


def gets_through(source: FakeVM, target: FakeVM, frame: bytes) -> bool:
    source.send(frame)
    return frame in target.drain()

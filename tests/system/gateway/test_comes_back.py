"""A gateway that is lost while the host has changed serves again, and gets what it lacks later."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.gateway.place import GATEWAY, GUEST, Place
from tests.helpers.gateway.processes import process
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

pytestmark = pytest.mark.guest
ADDRESS = "10.9.9.1"


def listed(switch: Switch) -> list[str]:
    """Return the forwards in force; none while the gateway starts."""
    return sorted(switch.command("forward", "list", check=False).stdout.split())


def folder_of(here: Place) -> Path:
    """Make a directory in which the switch may make sockets."""
    folder = here.switch.directory / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_what_the_host_cannot_give_keeps_no_gateway_from_serving(place: Callable[..., Place]) -> None:
    here = place(services=True)
    services = here.switch.directory / "services.sock"
    folder = folder_of(here)
    here.host.run(f"ip addr add {ADDRESS}/32 dev lo")
    wanted = sorted(
        f"{near}:{GUEST}:80" for near in (f"tcp:{ADDRESS}:8080", f"unix:{folder}/a", "tcp:127.0.0.1:8080")
    )
    here.switch.command("forward", "add", *wanted)
    pid = process(here.switch, "gateway")
    # A VPN has gone, another one has come, and a program has cleaned up.
    here.host.run(f"ip addr del {ADDRESS}/32 dev lo; ip addr add 192.168.0.7/16 dev out")
    shutil.rmtree(folder)
    services.unlink()
    services.mkdir()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: process(here.switch, "gateway") != pid and listed(here.switch), here.switch.log)
    assert listed(here.switch) == [f"tcp:127.0.0.1:8080:{GUEST}:80"]
    here.switch.wait_live(2)
    assert GATEWAY in here.guest.run(f"busybox nslookup -type=a gateway.containers.internal {GATEWAY}")
    assert "overlaps 192.168.0.0/16" in here.switch.log()

    here.host.run(f"ip addr add {ADDRESS}/32 dev lo")
    folder_of(here)
    services.rmdir()
    wait_for(lambda: listed(here.switch) == wanted, here.switch.log)
    wait_for(services.is_socket, "the API")


def test_deleted_sockets_of_the_gateway_are_made_again(place: Callable[..., Place]) -> None:
    here = place(services=True)
    folder = folder_of(here)
    forward = f"unix:{folder}/a:{GUEST}:80"
    here.switch.command("forward", "add", forward)
    sockets = [folder / "a", here.switch.directory / "services.sock"]
    for path in sockets:
        path.unlink()
    wait_for(lambda: all(path.is_socket() for path in sockets), here.switch.log)
    answer = here.host.run(f"curl --silent --unix-socket {sockets[1]} http://gateway/services/forwarder/all")
    assert str(sockets[0]) in answer
    assert listed(here.switch) == [forward]
    here.switch.command("forward", "remove", forward)
    assert not sockets[0].exists()

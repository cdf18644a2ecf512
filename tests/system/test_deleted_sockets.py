"""Sockets deleted under a running switch are made again, and nothing that took their place is touched."""

from __future__ import annotations

from collections.abc import Callable

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.ports import gets_through
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

StartSwitch = Callable[..., Switch]


def test_deleted_sockets_are_made_again(switch: StartSwitch) -> None:
    running = switch(qemu=True, bess=True, vfkit=1)
    first = running.connect("unix")
    running.wait_live(1)
    sockets = [running.qemu, running.bess, running.vfkit(), running.runtime_dir / "console.sock"]
    for path in sockets:
        path.unlink()
    wait_for(lambda: all(path.is_socket() for path in sockets), running.log)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in sockets)
    later = [running.connect(kind, kind) for kind in ("unix", "unixpacket", "unixgram")]
    later[2].send(build_frame(BROADCAST, mac(3)))
    running.wait_live(4)
    for vm in later:
        wait_for(lambda vm=vm: gets_through(first, vm, build_frame(BROADCAST, mac(1))), "a broadcast")  # type: ignore[misc]
    assert running.log().count("was deleted and is made again") == 4


def test_a_file_in_the_place_of_a_socket_is_left_alone(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    running.qemu.unlink()
    running.qemu.write_text("precious")
    before = running.json("status")["uptime_s"]
    wait_for(lambda: running.json("status")["uptime_s"] > before + 2.5, "a few looks at it")
    assert running.qemu.read_text() == "precious"
    running.qemu.unlink()
    wait_for(running.qemu.is_socket, "the socket")

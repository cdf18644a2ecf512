"""A VM of vhost-user that listens itself: dialled until it is there, again when it has gone, never twice."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.vhost_vm import VhostVM
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.probes import kill_supervisor

StartSwitch = Callable[..., Switch]


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(str(path))
        sock.listen(8)
        yield sock


@contextlib.contextmanager
def set_up(listener: socket.socket, path: Path) -> Iterator[VhostVM]:
    with contextlib.closing(VhostVM(path, sock=listener.accept()[0])) as vm:
        vm.set_up()
        vm.post(20)
        yield vm


def is_heard(vm: VhostVM, other: FakeVM, size: int) -> None:
    frame = build_frame(BROADCAST, mac(1), size)

    def heard() -> bool:
        vm.send(frame)
        return frame in other.drain()

    wait_for(heard, f"a frame of {size} bytes")


@pytest.mark.parametrize("way", ["told at the start", "attached"])
def test_a_vm_that_listens_is_dialled_for_ever(switch: StartSwitch, tmp_path: Path, way: str) -> None:
    path = tmp_path / "vm.sock"
    flag = ("--dial-vhost", f"unix://{path}")
    running = switch(*(flag if way == "told at the start" else ()), qemu=True)
    if way == "attached":
        running.command("attach", *flag)
    other = running.connect("unix")
    running.wait_live(1)
    for size in (100, 200):  # which is there later than the switch, goes, and comes again
        with listening(path) as listener, set_up(listener, path) as vm:
            running.wait_live(2)
            is_heard(vm, other, size)
        path.unlink()
        running.wait_live(1)
    with listening(path) as listener, set_up(listener, path) as vm:
        running.wait_live(2)
        kill_supervisor(running)
        again = running.arguments(qemu=True)
        running.start(*again, *(flag if way == "told at the start" else ()))
        running.wait_live(2)
        is_heard(vm, other, 300)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()

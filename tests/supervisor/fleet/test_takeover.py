"""Supervisors killed at any moment, and those that follow: no link is touched, and no port is forgotten."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import FakeVM, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import (
    ask,
    check,
    goes_on,
    kill_supervisor,
    kill_worker,
    live,
    name_of,
    port_of,
    workers,
)

StartSwitch = Callable[..., Switch]
EVERYBODY = {"qemu": True, "bess": True, "vfkit": 1, "network": True}
SYS_PIDFD_GETFD = 438


def wait_gone(pid: int) -> None:
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} to end")


def wait_log(switch: Switch, text: str, count: int = 1) -> None:
    wait_for(lambda: switch.log().count(text) >= count, lambda: f"{text!r} in:\n{switch.log()}")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Keep a worker from claiming, and so a claim window open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Trio:
    """A switch with three VMs, of which the first two talk."""

    def __init__(self, start: StartSwitch) -> None:
        self.switch = start(**EVERYBODY)
        self.vms: list[FakeVM] = [
            self.switch.connect(kind, kind) for kind in ("unix", "unixpacket", "unixgram")
        ]
        self.talk = Conversation(self.vms[0], mac(1), self.vms[1], mac(2))
        self.talk.begin()
        self.aside = Conversation(self.vms[2], mac(3), self.switch.connect("connect"), mac(4))
        self.aside.begin()
        self.arguments = self.switch.arguments(**EVERYBODY)  # type: ignore[arg-type]
        self.before = workers(self.switch)
        assert len(self.before) == 4

    def worker_of(self, address: int) -> tuple[str, int]:
        name = name_of(self.switch, mac(address))
        return name, self.before[name][0]

    def check(self) -> None:
        """Nothing was lost, no link was touched, no port was forgotten, and newcomers are heard."""
        for talk in (self.talk, self.aside):
            talk.settle()
            assert talk.closed == []
            assert talk.lost == 0
            check(talk, self.switch)
        assert workers(self.switch) == self.before
        self.newcomer()

    def newcomer(self) -> None:
        """A new VM talks to the first one of old, both ways."""
        self.talk.settle()  # its first VM has no half of a frame left to send
        new = Conversation(self.vms[0], mac(1), self.switch.connect("unix"), mac(9))
        assert new.flows()
        assert new.wrong == []


@pytest.fixture
def trio(switch: StartSwitch) -> Trio:
    return Trio(switch)


def test_supervisors_come_and_go_and_no_frame_is_lost(trio: Trio) -> None:
    counted = {}
    for number in range(2):
        with trio.talk.going_on():
            kill_supervisor(trio.switch)
            sent = trio.talk.ends[0].sent
            wait_for(lambda sent=sent: trio.talk.ends[0].sent > sent + 100, "traffic without a supervisor")  # type: ignore[misc]
            trio.switch.start(*trio.arguments)
            assert workers(trio.switch) == trio.before
        stats = {port["name"]: port["rx"]["frames"] for port in ask(trio.switch, "stats")["ports"]}
        assert all(stats[name] >= frames for name, frames in counted.items())
        counted = stats
        assert trio.switch.log().count("taken over with its worker") == 4 * (number + 1)
    trio.check()


def test_a_supervisor_killed_while_it_takes_over_is_followed_by_a_third(trio: Trio) -> None:
    _, late = trio.worker_of(4)
    with trio.talk.going_on():
        kill_supervisor(trio.switch)
        with stopped(late):
            trio.switch.launch(*trio.arguments)
            wait_log(trio.switch, "taken over with its worker", 3)
            kill_supervisor(trio.switch)
        trio.switch.start(*trio.arguments)
    trio.check()


def test_a_worker_killed_while_ports_are_claimed_gets_a_successor(trio: Trio) -> None:
    _, late = trio.worker_of(4)
    victim, pid = trio.worker_of(2)
    kill_supervisor(trio.switch)
    with stopped(late):
        trio.switch.launch(*trio.arguments)
        wait_log(trio.switch, "taken over with its worker", 3)
        os.kill(pid, signal.SIGKILL)
        wait_log(trio.switch, "worker lost")
    trio.switch.wait_ready()
    assert goes_on(trio.switch, victim, trio.before[victim][1], trio.talk), trio.talk.closed
    assert {name: row for name, row in workers(trio.switch).items() if name != victim} == {
        name: row for name, row in trio.before.items() if name != victim
    }
    trio.newcomer()
    trio.aside.settle()
    assert trio.aside.lost == 0
    check(trio.talk, trio.switch)


def test_a_worker_killed_together_with_its_supervisor_takes_only_its_own_link_along(trio: Trio) -> None:
    victim, pid = trio.worker_of(2)
    kill_supervisor(trio.switch)
    os.kill(pid, signal.SIGKILL)
    trio.vms[1].wait_closed()
    trio.switch.start(*trio.arguments)
    live(trio.switch, 3)
    assert victim not in workers(trio.switch)
    trio.talk.ends[1].reconnect(trio.switch.connect("unixpacket"))
    assert trio.talk.flows()
    trio.aside.settle()
    assert trio.aside.lost == 0
    trio.newcomer()
    check(trio.talk, trio.switch)


def test_vms_that_leave_while_there_is_no_supervisor_leave_nothing_behind(trio: Trio) -> None:
    _, pid = trio.worker_of(2)
    name, datagram = trio.worker_of(3)
    kill_supervisor(trio.switch)
    trio.vms[1].close()
    wait_gone(pid)  # it sees the end of its link
    trio.vms[2].close()  # without notice
    trio.switch.start(*trio.arguments)
    wait_gone(datagram)
    live(trio.switch, 2)
    assert port_of(trio.switch, name)["state"] == ""
    trio.talk.ends[1].reconnect(trio.switch.connect("unixpacket"))
    assert trio.talk.flows()
    trio.aside.ends[0].reconnect(trio.switch.connect("unixgram", "again"))
    assert trio.aside.flows()
    live(trio.switch, 4)


def test_a_worker_that_is_killed_after_a_takeover_is_replaced_like_any_other(trio: Trio) -> None:
    kill_supervisor(trio.switch)
    trio.switch.start(*trio.arguments)
    victim, _ = trio.worker_of(3)
    epoch = kill_worker(trio.switch, victim, trio.aside, 0.01)
    assert goes_on(trio.switch, victim, epoch, trio.aside), trio.aside.closed
    trio.newcomer()
    check(trio.aside, trio.switch)


def cut_channel(switch: Switch, worker: int) -> None:
    """Shut the supervisor's end of one worker's channel, from outside."""
    assert switch.process is not None
    pidfd = os.pidfd_open(switch.process.pid)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        for entry in Path(f"/proc/{switch.process.pid}/fd").iterdir():
            if not os.readlink(entry).startswith("socket:"):
                continue
            duplicate = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(entry.name), 0)
            if duplicate < 0:
                pytest.skip(f"no descriptor of another process: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=duplicate) as sock:
                if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET:
                    continue
                peer = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                if peer == worker:
                    sock.shutdown(socket.SHUT_RDWR)
                    return
    finally:
        os.close(pidfd)
    raise RuntimeError(f"the supervisor has no channel to {worker}")


def test_a_worker_that_loses_its_channel_gets_another_and_keeps_its_port(trio: Trio) -> None:
    """The kernel tells which channel is whose where the supervisor has come to the workers."""
    random_order = random.sample([1, 2, 3, 4], 4)
    kill_supervisor(trio.switch)
    trio.switch.start(*trio.arguments)
    with trio.talk.going_on():
        for number, address in enumerate(random_order):
            cut_channel(trio.switch, trio.worker_of(address)[1])
            wait_log(trio.switch, "its worker's channel is back", number + 1)
    trio.check()


def test_floods_move_over_the_next_channel_if_one_is_lost(trio: Trio) -> None:
    """The second loss in a row lasts some seconds (``DIAL_S``)."""
    name, pid = trio.worker_of(3)
    kill_supervisor(trio.switch)
    trio.switch.start(*trio.arguments)
    for number in (1, 2):
        cut_channel(trio.switch, pid)
        if number == 2:
            trio.switch.command("set", name, "isolated=true", check=False)  # that worker may not confirm it
        wait_log(trio.switch, "its worker's channel is back", number)
    answer = ask(trio.switch, "set", target=name, settings={"reach": [trio.worker_of(1)[0]]})
    assert answer["unmoved"] == []
    assert workers(trio.switch) == trio.before


def test_settings_that_change_while_a_channel_is_lost_outlive_the_supervisor(trio: Trio) -> None:
    """The second loss in a row lasts some seconds (``DIAL_S``)."""
    name, pid = trio.worker_of(3)
    kill_supervisor(trio.switch)
    trio.switch.start(*trio.arguments)
    cut_channel(trio.switch, pid)
    wait_log(trio.switch, "its worker's channel is back")
    cut_channel(trio.switch, pid)
    trio.switch.command("set", name, "isolated=true", check=False)  # that worker may not confirm it
    kill_supervisor(trio.switch)
    trio.switch.start(*trio.arguments)
    assert workers(trio.switch) == trio.before
    assert trio.switch.json("show", name)["settings"]["isolated"]

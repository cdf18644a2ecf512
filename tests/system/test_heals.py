"""Faults of the host: another pair of VMs talks on meanwhile, and when the fault is over all is as before.

docs/confinement.md names the test of each fault; these are the ones that belong to no other file.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, workers

StartSwitch = Callable[..., Switch]
MIB = 1 << 20


class Pair:
    """Two VMs that talk while something happens."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.talk = Conversation(switch.connect("unix"), mac(1), switch.connect("unixpacket"), mac(2))
        self.talk.begin()
        switch.wait_live(2)
        assert self.talk.flows()
        self.before = workers(switch)

    @property
    def supervisor(self) -> int:
        assert self.switch.process is not None
        return self.switch.process.pid

    def check(self) -> None:
        """Nothing was lost, and both have the worker that they had."""
        self.talk.settle()
        assert (self.talk.lost, self.talk.wrong, self.talk.closed) == (0, [], [])
        assert workers(self.switch).items() >= self.before.items()


@pytest.fixture
def pair(switch: StartSwitch) -> Pair:
    return Pair(switch(qemu=True, bess=True))


def test_a_stopped_supervisor_goes_on_and_serves_who_came_meanwhile(pair: Pair) -> None:
    os.kill(pair.supervisor, signal.SIGSTOP)
    try:
        with pair.talk.going_on():
            late = pair.switch.connect("unix")
            time.sleep(3.2)  # three beats are silence: the fault itself is a time
    finally:
        os.kill(pair.supervisor, signal.SIGCONT)
    pair.switch.wait_live(3)
    pair.check()
    late.close()


def test_sixty_vms_that_come_and_go_at_once_leave_nothing(pair: Pair) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{pair.supervisor}/fd"))

    for _ in range(2):  # the second time nothing is made for the first time
        before = descriptors()
        with pair.talk.going_on():
            crowd = [pair.switch.connect("unix") for _ in range(60)]
            wait_for(lambda: len(ask(pair.switch)["ports"]) > 30, "many of them")
            for vm in crowd:
                vm.close()
            wait_for(lambda: len(ask(pair.switch)["ports"]) == 2, "all of them to be gone", 60)
    wait_for(lambda: descriptors() <= before + 8, lambda: f"{before} descriptors, there are {descriptors()}")
    pair.check()


def test_a_supervisor_without_memory_refuses_and_serves_when_there_is_some_again(pair: Pair) -> None:
    size = int(Path(f"/proc/{pair.supervisor}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, most = resource.prlimit(pair.supervisor, resource.RLIMIT_AS)
    resource.prlimit(pair.supervisor, resource.RLIMIT_AS, (size + 4 * MIB, most))
    with pair.talk.going_on():
        crowd = [pair.switch.connect("unix") for _ in range(9)]
        assert pair.switch.command("status").returncode == 0
    resource.prlimit(pair.supervisor, resource.RLIMIT_AS, (most, most))
    for vm in crowd:
        vm.close()
    wait_for(lambda: len(ask(pair.switch)["ports"]) == 2, "them to be gone", 60)
    late = pair.switch.connect("unix")
    pair.switch.wait_live(3)
    pair.check()
    late.close()
    assert "Traceback" not in pair.switch.log()


@contextmanager
def small_disk() -> Iterator[Path]:
    with short_directory() as directory:
        words = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(directory)]
        if subprocess.run(words, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> None:
    with (directory / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_a_disk_that_fills_while_the_switch_runs_harms_nothing() -> None:
    with small_disk() as directory, short_directory() as elsewhere:
        switch = Switch(directory)
        switch.log_path = elsewhere / "log"
        try:
            switch.start(*switch.arguments(qemu=True, bess=True))
            pair = Pair(switch)
            fill(directory)
            with pair.talk.going_on():
                late = switch.connect("unix")
                switch.wait_live(3)
                name = max(switch.ports(), key=lambda port: port["port"])["name"]
                switch.command("set", name, "limit-macs=7", check=False)
                late.close()
                switch.wait_live(2)
            (directory / "filler").unlink()
            late = switch.connect("unix")
            switch.wait_live(3)
            name = max(switch.ports(), key=lambda port: port["port"])["name"]
            switch.command("set", name, "limit-macs=7")
            pair.check()
            late.close()
            switch.stop()
        finally:
            switch.kill()


def test_a_log_that_cannot_be_written_harms_nothing() -> None:
    with short_directory() as directory:
        switch = Switch(directory)
        log, switch.log_path = switch.log_path, Path("/dev/full")
        try:
            switch.start(*switch.arguments(qemu=True, bess=True))
            switch.log_path = log
            log.touch()
            pair = Pair(switch)
            late = switch.connect("unix")
            switch.wait_live(3)
            pair.check()
            late.close()
            switch.stop()
        finally:
            switch.log_path = log
            switch.kill()

"""Switches whose processes are taken over: run by any user, without a part of a cell, with VMs that talk."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.ordinary import as_user
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.watching import ask, live, workers
from tests.helpers.taken_over import TakenOver

ORDINARY = 21_001
ROOT = os.geteuid() == 0
USERS = [None, ORDINARY] if ROOT else [None]
DENY = """
import ctypes, os, struct, sys
def deny(numbers):
    libc = ctypes.CDLL(None, use_errno=True)
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for number in numbers:
        code += [struct.pack("HBBI", 0x15, 0, 1, number), struct.pack("HBBI", 0x06, 0, 0, 0x50000 | 38)]
    code.append(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
    buffer = ctypes.create_string_buffer(b"".join(code))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    filled = Program(len(code), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(filled), 0, 0) == 0
deny([int(each) for each in sys.argv[1].split(",")])
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""As a sandbox around the switch would: these system calls are not there."""
CALLS = {"landlock": "444,445,446", "seccomp": "317", "root": "161"}
"""Numbers of x86-64; without chroot there is no empty root, even with user namespaces."""

x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls of x86-64")


def without(part: str) -> Callable[[list[str]], list[str]]:
    """Return what wraps a command so that the kernel has no such part."""
    return lambda command: [sys.executable, "-c", DENY, CALLS[part], *command]


@contextmanager
def taken_over(
    monkeypatch: pytest.MonkeyPatch,
    arguments: Callable[[Switch], Sequence[str]],
    *,
    user: int | None = None,
    part: str = "",
    inside: Sequence[str] = (),
) -> Iterator[tuple[Switch, TakenOver]]:
    """Give a switch whose processes do what the test says.

    It is run by that user, without that part of a cell, and behind the words of ``inside``.
    """

    def wrap(command: list[str]) -> list[str]:
        command = without(part)(command) if part else command
        command = command if user is None else as_user(user, command)
        return [*inside, *command]

    with short_directory() as directory:
        switch = Switch(directory, wrap=wrap)
        for path in (directory, switch.vm_dir):
            path.chmod(0o777)
        with closing(TakenOver(switch.vm_dir)) as taken:
            for name, value in taken.environment().items():
                monkeypatch.setenv(name, value)
            try:
                switch.start(*arguments(switch))
                yield switch, taken
                switch.stop()
            finally:
                switch.kill()
                print(switch.log())


def common_facts(switch: Switch, victims: dict[str, int]) -> dict[str, object]:
    """What the attacks need to know, besides what a test adds."""
    return {
        "victims": victims,
        "directory": str(switch.directory),
        "address": id(switch),
        "datagram": str(switch.vm_dir / "victim"),
        "skip": [],
    }


def supervisor_of(switch: Switch) -> int:
    pid = ask(switch)["supervisor"]["pid"]
    assert isinstance(pid, int)
    return pid


class World:
    """Three VMs: the worker of the first is taken over, the other two talk. There may be a gateway."""

    def __init__(
        self, switch: Switch, taken: TakenOver, user: int | None = None, *, gateway: int = 0
    ) -> None:
        """``gateway``: how many ports it has."""
        self.switch, self.taken = switch, taken
        if gateway:
            live(switch, gateway)
        if user is None:
            self.mallory = switch.connect("unixgram", "mallory")
            self.mallory.send(build_frame(BROADCAST, mac(1)))
        else:
            self.mallory = switch.connect("unix")
        live(switch, gateway + 1)
        self.victim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.victim.bind(str(switch.vm_dir / "victim"))
        os.chmod(switch.vm_dir / "victim", 0o777)
        self.alice, self.bob = switch.connect("unix"), switch.connect("unixpacket")
        self.talk = Conversation(self.alice, mac(2), self.bob, mac(3))
        self.talk.begin()
        ports = [port for port in live(switch, gateway + 3) if port["name"] != "gateway"]
        self.ports = dict(enumerate(sorted(ports, key=lambda port: port["port"]), 1))
        """Of mallory, alice and bob; ``port`` is the number that the switch has given it."""
        self.pids = {number: port["worker"]["pid"] for number, port in self.ports.items()}
        assert self.talk.flows()
        self.before = workers(switch)

    def run(self, source: str, **facts: object) -> dict[str, object]:
        victims = {"a sibling": self.pids[2], "the supervisor": supervisor_of(self.switch)}
        return self.taken.run(self.pids[1], source, **(common_facts(self.switch, victims) | facts))

    def check_talk_only(self) -> None:
        """No frame of others was touched."""
        self.talk.settle()
        assert self.talk.lost == 0
        assert self.talk.wrong == []
        assert self.talk.closed == []

    def check(self) -> None:
        """No frame, worker or port of others was touched, and a newcomer is served."""
        self.check_talk_only()
        after = workers(self.switch)
        mallory = self.ports[1]["name"]
        others = {name: row for name, row in self.before.items() if name != mallory}
        assert {name: after[name] for name in others} == others
        new = Conversation(self.alice, mac(2), self.switch.connect("unix"), mac(9))
        assert new.flows()

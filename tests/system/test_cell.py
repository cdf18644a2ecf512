"""A worker that a guest has taken over: its attacks are refused, and no other VM is affected."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.ordinary import as_user
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, kill_supervisor, live, workers
from tests.helpers.taken_over import TakenOver
from tests.helpers.taken_over.attacks import ATTACKS, MESSAGES

ORDINARY = 21_001
ROOT = os.geteuid() == 0
USERS = [None, ORDINARY] if ROOT else [None]
MESSAGES_SENT = 10_000
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
def cells(
    monkeypatch: pytest.MonkeyPatch, user: int | None = None, part: str = ""
) -> Iterator[tuple[Switch, TakenOver]]:
    """Give a switch whose workers do what the test says; run by that user, without that part of a cell."""

    def wrap(command: list[str]) -> list[str]:
        command = without(part)(command) if part else command
        return command if user is None else as_user(user, command)

    with short_directory() as directory:
        switch = Switch(directory, wrap=wrap)
        for path in (directory, switch.vm_dir):
            path.chmod(0o777)
        with closing(TakenOver(switch.vm_dir)) as taken:
            for name, value in taken.environment().items():
                monkeypatch.setenv(name, value)
            try:
                switch.start(*switch.arguments(qemu=True, bess=True, vfkit=1))
                yield switch, taken
                switch.stop()
            finally:
                switch.kill()
                print(switch.log())


class World:
    """Three VMs: the worker of the first is taken over, the other two talk."""

    def __init__(self, switch: Switch, taken: TakenOver, user: int | None = None) -> None:
        self.switch, self.taken = switch, taken
        if user is None:
            self.mallory = switch.connect("unixgram", "mallory")
            self.mallory.send(build_frame(BROADCAST, mac(1)))
        else:
            self.mallory = switch.connect("unix")
        live(switch, 1)
        self.victim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.victim.bind(str(switch.vm_dir / "victim"))
        os.chmod(switch.vm_dir / "victim", 0o777)
        self.alice, self.bob = switch.connect("unix"), switch.connect("unixpacket")
        self.talk = Conversation(self.alice, mac(2), self.bob, mac(3))
        self.talk.begin()
        self.ports = {port["port"]: port for port in live(switch, 3)}
        self.pids = {number: port["worker"]["pid"] for number, port in self.ports.items()}
        assert self.talk.flows()
        self.before = workers(switch)

    def run(self, source: str, **facts: object) -> dict[str, object]:
        victims = {"a sibling": self.pids[2], "the supervisor": self.switch_pid()}
        common = {"victims": victims, "directory": str(self.switch.directory), "address": id(self)}
        common["skip"] = []
        common["datagram"] = str(self.switch.vm_dir / "victim")
        return self.taken.run(self.pids[1], source, **(common | facts))

    def switch_pid(self) -> int:
        pid = ask(self.switch)["supervisor"]["pid"]
        assert isinstance(pid, int)
        return pid

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
        assert {name: after[name] for name in list(self.before)[1:]} == dict(list(self.before.items())[1:])
        new = Conversation(self.alice, mac(2), self.switch.connect("unix"), mac(9))
        assert new.flows()


@pytest.mark.parametrize("user", USERS)
def test_every_attack_of_a_hostile_worker_is_refused_and_reported(
    monkeypatch: pytest.MonkeyPatch, user: int | None
) -> None:
    with cells(monkeypatch, user) as (switch, taken):
        world = World(switch, taken, user)
        missing = ask(switch)["supervisor"]["cell"]["missing"]
        if missing:
            pytest.skip(f"the kernel has no {', '.join(missing)}")
        with world.talk.going_on():
            said = world.run(ATTACKS)
        worked = {name: what for name, what in said.items() if str(what).startswith("worked")}
        assert not worked
        assert len(said) >= 50
        assert not (switch.directory / "made").exists()
        wait_for(lambda: "its worker's cell has refused" in switch.log(), "the log to say so")
        world.check()


@x86
@pytest.mark.parametrize("part", ["landlock", "seccomp", "root"])
@pytest.mark.parametrize("user", USERS)
def test_a_missing_part_is_named_and_the_others_stay_in_force(
    monkeypatch: pytest.MonkeyPatch, user: int | None, part: str
) -> None:
    with cells(monkeypatch, user, part) as (switch, taken):
        world = World(switch, taken, user)
        cell = ask(switch)["supervisor"]["cell"]
        assert cell["missing"] == [part]
        assert f"missing: {part}: " in switch.log(), "with the reason"
        assert f"missing: {part}" in switch.command("status").stdout
        # Of processes of one's own user Landlock keeps memory, files and signals, and nothing else.
        skip = (
            ["priority", "limits of", "SIGKILL by the kernel", "kill everybody"] if part == "seccomp" else []
        )
        with world.talk.going_on():
            said = world.run(ATTACKS, skip=skip)
        worked = {name for name, what in said.items() if str(what).startswith("worked")}
        harmless = {
            "landlock": set(),
            "root": {"a socket by its name"},  # sendmsg: its arguments are out of a filter's sight
            # The remaining attacks harm no other process: its own memory, sockets that lead nowhere.
            "seccomp": {name for name in said if name.startswith("a socket of ")}
            | {
                "executable memory",
                "memory without a limit",
                "memfd",
                "io_uring",
                "keyring",
                "user namespace",
            }
            | {"16 GiB", "more limits", "pidfd of a sibling", "pidfd of the supervisor"},
        }[part]
        assert worked <= harmless
        world.check()


@x86
@pytest.mark.parametrize("part", ["landlock", "seccomp", "root"])
def test_a_cell_that_is_required_and_not_to_be_had_is_the_end_of_the_start(part: str) -> None:
    with short_directory() as directory:
        switch = Switch(directory, wrap=without(part))
        switch.launch(*switch.arguments(qemu=True), "--cell", "required")
        assert switch.process is not None
        assert switch.process.wait(60) == 1
        assert switch.process.communicate()[0] == ""
        assert f"a cell is required, and it lacks {part}: " in switch.log()
        switch.assert_nothing_left()


def test_a_required_and_complete_cell_serves() -> None:
    with short_directory() as directory:
        switch = Switch(directory)
        try:
            switch.start(*switch.arguments(qemu=True))
            wait_for(lambda: ask(switch)["supervisor"]["cell"]["in_force"], "a worker to be ready")
            missing = ask(switch)["supervisor"]["cell"]["missing"]
            switch.stop()
            if missing:
                pytest.skip(f"the kernel has no {', '.join(missing)}")
            switch.start(*switch.arguments(qemu=True), "--cell", "required")
            talk = Conversation(switch.connect("unix"), mac(1), switch.connect("unix"), mac(2))
            assert talk.flows()
            assert ask(switch)["supervisor"]["cell"]["required"]
            switch.stop()
        finally:
            switch.kill()


@x86
def test_a_worker_of_a_switch_that_required_no_cell_is_not_taken_over_by_one_that_does() -> None:
    sandbox = without("landlock")

    def wrap(command: list[str]) -> list[str]:
        return command if "required" in command else sandbox(command)

    with short_directory() as directory:
        switch = Switch(directory, wrap=wrap)
        try:
            switch.start(*switch.arguments(qemu=True))
            before = switch.connect("unix")
            (port,) = switch.wait_live(1)
            kill_supervisor(switch)
            switch.start(*switch.arguments(qemu=True), "--cell", "required")
            assert "not taken over, a cell is required, and it lacks landlock" in switch.log()
            wait_for(lambda: not Path(f"/proc/{port['worker']['pid']}").exists(), "its worker to end")
            before.wait_closed()
            talk = Conversation(switch.connect("unix"), mac(1), switch.connect("unix"), mac(2))
            assert talk.flows()
            switch.stop()
        finally:
            switch.kill()


def test_a_worker_can_only_report_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends ten thousand messages: forged, replayed, garbled, with and without descriptors."""
    with cells(monkeypatch) as (switch, taken):
        world = World(switch, taken)
        fds = len(os.listdir(f"/proc/{world.switch_pid()}/fd"))
        victim = world.ports[2]
        sent = 0
        with world.talk.going_on():
            while sent < MESSAGES_SENT and world.pids[1] in [row[0] for row in workers(switch).values()]:
                said = world.run(MESSAGES, seed=sent, count=500, port=2, epoch=victim["worker"]["epoch"])
                sent += int(str(said["sent"]))
        world.check()
        world.mallory.close()
        wait_for(
            lambda: len(os.listdir(f"/proc/{world.switch_pid()}/fd")) <= fds + 16, "descriptors to be closed"
        )


def test_subscriptions_of_a_worker_cost_the_supervisor_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with cells(monkeypatch) as (switch, taken):
        world = World(switch, taken)
        with world.talk.going_on():
            world.run(
                "for number in range(20_000):\n"
                "    worker._subscription._socket.subscribe(b'%d' % number + bytes(50))"
            )
            wait_for(lambda: "that workers never send" in switch.log(), "the log to say so")
        world.check()


def test_a_worker_gets_no_ring_of_a_port_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with cells(monkeypatch) as (switch, taken):
        world = World(switch, taken)
        name = world.ports[2]["name"]
        other = world.ports[3]["name"]
        switch.command("set", name, "isolated=true", f"reach={other}")
        epoch = world.ports[2]["worker"]["epoch"]
        source = (
            "from forwarder.messages import WantRing, WantFloods\n"
            "came = []\n"
            "old = worker._links.receive\n"
            "def receive(message, descriptors, now):\n"
            "    came.append((type(message).__name__, len(descriptors)))\n"
            "    old(message, descriptors, now)\n"
            "worker._links.receive = receive\n"
            f"for _ in range(20):\n"
            f"    worker._channel.send(WantRing(2, {epoch}))\n"
            f"    worker._channel.send(WantFloods(((2, {epoch}),)))\n"
            "for _ in range(200):\n"
            "    time.sleep(0.01)\n"
            "    worker._read_channel()\n"
            "said['descriptors'] = sum(count for _, count in came)\n"
            "said['answers'] = len(came)"
        )
        said = world.run(source)
        assert said["answers"] >= 20, "each WantFloods is answered, with nothing"
        assert said["descriptors"] == 0
        assert "out of its reach: refused" in switch.log()
        world.check_talk_only()


def strangers(path: Path, kind: int, count: int) -> int:
    """Connect to a socket again and again as another process of the same user, and say what no one says."""
    code = (
        "import os, random, socket, struct, sys\n"
        "path, kind, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
        "chance, sent = random.Random(count), 0\n"
        "null = os.open('/dev/null', 0)\n"
        "while sent < count:\n"
        "    with socket.socket(socket.AF_UNIX, kind) as sock:\n"
        "        sock.settimeout(0.05)\n"
        "        try:\n"
        "            sock.connect(path)\n"
        "            for _ in range(chance.randrange(1, 50)):\n"
        "                sent += 1\n"
        "                fds = [null] * chance.choice((0, 0, 1, 7, 100))\n"
        "                rights = [(1, 1, struct.pack(f'{len(fds)}i', *fds))] if fds else []\n"
        "                sock.sendmsg([chance.randbytes(chance.randrange(1, 3000))], rights)\n"
        "        except OSError:\n"
        "            sent += 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(kind), str(count)], check=True, timeout=120
    )
    return done.returncode


def test_garbage_at_every_socket_of_the_runtime_directory_disturbs_no_vm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with cells(monkeypatch) as (switch, taken):
        world = World(switch, taken)
        pids = [world.switch_pid(), *world.pids.values()]
        before = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids} if ROOT else {}
        sockets = [path for path in switch.runtime_dir.iterdir() if path.is_socket()]
        assert {path.suffix for path in sockets} == {".sock", ".channel", ".members"}
        with world.talk.going_on():
            for path in sockets:
                kind = socket.SOCK_SEQPACKET if path.suffix == ".channel" else socket.SOCK_STREAM
                strangers(path, kind, MESSAGES_SENT // len(sockets))
        world.check()
        wait_for(
            lambda: all(len(os.listdir(f"/proc/{pid}/fd")) <= count + 16 for pid, count in before.items()),
            "descriptors to be closed",
        )

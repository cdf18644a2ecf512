"""A worker that a guest has taken over: its attacks are refused, and no other VM is affected."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.ports.reserve import LEFT, TOGETHER
from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, kill_supervisor, workers
from tests.helpers.taken_over.attacks import (
    ABUSE_BELLS,
    ATTACKS,
    HEAR_BELLS,
    KEEP,
    LISTEN,
    MESSAGES,
    ONE_BY_ONE,
    WORKER_ATTACKS,
)
from tests.helpers.taken_over.strangers import strangers
from tests.helpers.taken_over.world import ROOT, USERS, World, supervisor_of, taken_over, without, x86

MESSAGES_SENT = 10_000


@contextmanager
def world_of(monkeypatch: pytest.MonkeyPatch, user: int | None = None, part: str = "") -> Iterator[World]:
    """Give a switch without a gateway, and three VMs."""

    def arguments(switch: Switch) -> list[str]:
        return switch.arguments(qemu=True, bess=True, vfkit=1)

    with taken_over(monkeypatch, arguments, user=user, part=part) as (switch, taken):
        yield World(switch, taken, user)


@pytest.mark.parametrize("user", USERS)
def test_every_attack_of_a_hostile_worker_is_refused_and_reported(
    monkeypatch: pytest.MonkeyPatch, user: int | None
) -> None:
    with world_of(monkeypatch, user) as world:
        switch = world.switch
        missing = ask(switch)["supervisor"]["cell"]["missing"]
        if missing:
            pytest.skip(f"the kernel has no {', '.join(missing)}")
        with world.talk.going_on():
            said = world.run(ATTACKS + WORKER_ATTACKS + ONE_BY_ONE)
        worked = {name: what for name, what in said.items() if str(what).startswith("worked")}
        assert not worked
        assert len(said) >= 150
        assert {what for name, what in said.items() if name.startswith("call of ")} == {"EPERM"}
        assert not (switch.directory / "made").exists()
        wait_for(lambda: "its worker's cell has refused" in switch.log(), "the log to say so")
        world.check()


@x86
@pytest.mark.parametrize("part", ["landlock", "seccomp", "root"])
@pytest.mark.parametrize("user", USERS)
def test_a_missing_part_is_named_and_the_others_stay_in_force(
    monkeypatch: pytest.MonkeyPatch, user: int | None, part: str
) -> None:
    with world_of(monkeypatch, user, part) as world:
        switch = world.switch
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
    with world_of(monkeypatch) as world:
        switch = world.switch
        fds = len(os.listdir(f"/proc/{supervisor_of(switch)}/fd"))
        victim = world.ports[2]
        sent = 0
        with world.talk.going_on():
            while sent < MESSAGES_SENT and world.pids[1] in [row[0] for row in workers(switch).values()]:
                said = world.run(
                    MESSAGES, seed=sent, count=500, port=victim["port"], epoch=victim["worker"]["epoch"]
                )
                sent += int(str(said["sent"]))
        world.check()
        world.mallory.close()
        wait_for(
            lambda: len(os.listdir(f"/proc/{supervisor_of(switch)}/fd")) <= fds + 16,
            "descriptors to be closed",
        )


@pytest.mark.parametrize("abuses", [["fill"], ["empty"], ["fill", "empty"], ["ring"]])
def test_a_hostile_worker_cannot_silence_the_bells_of_others(
    monkeypatch: pytest.MonkeyPatch, abuses: list[str]
) -> None:
    with world_of(monkeypatch) as world:
        world.run(HEAR_BELLS)

        def has_all_bells() -> bool:
            for number in (2, 3):
                world.mallory.send(build_frame(mac(number), mac(1)))
            return bool(world.run("said['bells'] = len(test.bells)")["bells"] == 3)

        wait_for(has_all_bells, "the bells of alice, of bob and of all")
        world.talk.settle()
        with ThreadPoolExecutor(1) as executor:
            abuse = executor.submit(world.run, ABUSE_BELLS, abuses=abuses, seconds=2)
            times = []
            for number in range(40):
                source, target = (world.alice, world.bob) if number % 2 else (world.bob, world.alice)
                sender, receiver = (2, 3) if number % 2 else (3, 2)
                for destination in (mac(receiver), BROADCAST):
                    frame = build_frame(destination, mac(sender), 100, seed=number)
                    began = time.monotonic()
                    source.send(frame)
                    target.receive_matching(lambda each, frame=frame: each == frame)  # type: ignore[misc]
                    times.append(time.monotonic() - began)
            assert abuse.result()["turns"] > 0
        # Where no bell is heard, each of 80 frames waits for the next heartbeat, a second. A busy machine
        # delays some of them so long, not the most.
        assert statistics.median(times) < 0.5
        assert workers(world.switch).items() >= world.before.items(), "no worker was replaced"


def test_subscriptions_of_a_worker_cost_the_supervisor_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with world_of(monkeypatch) as world:
        switch = world.switch
        with world.talk.going_on():
            world.run(
                "import zmq\n"
                "for number in range(20_000):\n"
                "    worker._subscription._socket.set(zmq.SUBSCRIBE, b'%d' % number + bytes(50))"
            )
            wait_for(lambda: "that workers never send" in switch.log(), "the log to say so")
        world.check()


def test_a_worker_gets_no_ring_of_a_port_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with world_of(monkeypatch) as world:
        switch = world.switch
        name = world.ports[2]["name"]
        other = world.ports[3]["name"]
        switch.command("set", name, "isolated=true", f"reach={other}")
        number, epoch = world.ports[2]["port"], world.ports[2]["worker"]["epoch"]
        source = (
            "from forwarder.messages import WantRing, WantFloods\n"
            "came = []\n"
            "old = worker._links.receive\n"
            "def receive(message, descriptors, now):\n"
            "    came.append((type(message).__name__, len(descriptors)))\n"
            "    old(message, descriptors, now)\n"
            "worker._links.receive = receive\n"
            f"for _ in range(20):\n"
            f"    worker._channel.send(WantRing({number}, {epoch}))\n"
            f"    worker._channel.send(WantFloods((({number}, {epoch}),)))\n"
            "for _ in range(200):\n"
            "    time.sleep(0.01)\n"
            "    worker._channel.read()\n"
            "said['descriptors'] = sum(count for _, count in came)\n"
            "said['answers'] = len(came)"
        )
        said = world.run(source)
        assert said["answers"] >= 20, "each WantFloods is answered, with nothing"
        assert said["descriptors"] == 0
        assert "out of its reach: refused" in switch.log()
        world.check_talk_only()


def test_a_hostile_worker_that_keeps_its_mappings_hears_nothing_of_ports_that_it_was_parted_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world_of(monkeypatch) as world:
        switch = world.switch
        world.run(KEEP)
        # Mallory had the rings of these before it kept any.
        reserved = [switch.connect("unix") for _ in range(TOGETHER + LEFT)]
        present = len(switch.wait_live(3 + len(reserved)))
        friend, carol = switch.connect("unix"), switch.connect("unix")
        dave = switch.connect("unixpacket")
        numbers = {port["name"]: port["port"] for port in switch.wait_live(present + 3)[present:]}
        to_friend, *names = numbers

        def heard(vm: object, mark: bytes) -> list[int]:
            """Flood a mark, until a friend has it; return the ports whose rings that mallory kept have it."""
            frame = build_frame(BROADCAST, mac(50), 60) + mark
            vm.send(frame)  # type: ignore[attr-defined]
            friend.receive_matching(lambda each: each == frame)
            said = world.run(LISTEN, mark=mark)
            assert set(numbers.values()) <= {int(port) for port in said["kept"]}  # type: ignore[attr-defined]
            return said["heard"]  # type: ignore[return-value]

        with world.talk.going_on():
            for vm, name in ((carol, names[0]), (dave, names[1])):
                assert heard(vm, name.encode() + b" before") == [numbers[name]]
            # carol is isolated, and hears and is heard by a friend only; then mallory is.
            for name, vm in ((names[0], carol), (world.ports[1]["name"], dave)):
                switch.command("set", name, "isolated=true", f"reach={to_friend}")
                for number in range(20):  # from the answer on
                    assert heard(vm, b"after, %d" % number) == []
            assert heard(carol, b"carol is still not heard") == []
        world.check_talk_only()
        assert workers(switch).items() >= world.before.items(), "no worker was replaced"
        switch.command("set", names[0], "isolated=no", "reach=")
        bob = Conversation(carol, mac(50), world.bob, mac(3))
        assert bob.flows(), "in reach again"


def test_garbage_at_every_socket_of_the_runtime_directory_disturbs_no_vm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world_of(monkeypatch) as world:
        switch = world.switch
        pids = [supervisor_of(switch), *world.pids.values()]
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

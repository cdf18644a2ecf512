"""Ports that are known before their VMs come, beside a worker that a guest has taken over."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.ports.reserve import LEFT, TOGETHER
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, live, port_of, workers
from tests.helpers.taken_over.attacks import ABUSE_RESERVED, KEEP, KEEP_RESERVED, LISTEN, MESSAGES
from tests.helpers.taken_over.world import USERS, World, supervisor_of, taken_over

MESSAGES_SENT = 10_000
MARK = b"not for mallory"
PRESENT = 3 + TOGETHER + LEFT


@contextlib.contextmanager
def world_of(monkeypatch: pytest.MonkeyPatch, user: int | None = None) -> Iterator[World]:
    def arguments(switch: Switch) -> list[str]:
        return switch.arguments(qemu=True, bess=True, vfkit=1)

    with taken_over(monkeypatch, arguments, user=user) as (switch, taken):
        yield World(switch, taken, user)


@contextlib.contextmanager
def keeping(world: World, keep: str) -> Iterator[list[int]]:
    """Let VMs come until other ports are reserved, whose rings mallory keeps; give their numbers."""
    world.run(keep)
    with contextlib.ExitStack() as stack:
        for _ in range(TOGETHER + LEFT):
            stack.enter_context(world.switch.connect("unix"))
        live(world.switch, PRESENT)
        yield wait_for(
            lambda: sorted(world.run("said['reserved'] = list(test.reserved)")["reserved"]),  # type: ignore[call-overload]
            "ports to be reserved",
        )


@pytest.mark.parametrize("user", USERS)
def test_the_ring_of_a_reserved_port_cannot_be_changed_before_its_vm_comes(
    monkeypatch: pytest.MonkeyPatch, user: int | None
) -> None:
    with world_of(monkeypatch, user) as world, keeping(world, KEEP_RESERVED) as numbers:
        with world.talk.going_on():
            said = world.run(ABUSE_RESERVED)
            assert len(said) == 14 * len(numbers)
            assert not {name: what for name, what in said.items() if str(what).startswith("worked")}
        newcomer = world.switch.connect("unix")
        assert live(world.switch, PRESENT + 1)[-1]["port"] in numbers
        frame = build_frame(BROADCAST, mac(77), 600)
        newcomer.send(frame)
        for vm in (world.alice, world.mallory):
            vm.receive_matching(lambda each: each == frame)
        world.check_talk_only()
        assert workers(world.switch).items() >= world.before.items(), "no worker was replaced"


def test_messages_about_reserved_ports_are_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with world_of(monkeypatch) as world, keeping(world, KEEP_RESERVED) as numbers:
        fds = len(os.listdir(f"/proc/{supervisor_of(world.switch)}/fd"))
        sent = 0
        with world.talk.going_on():
            while sent < MESSAGES_SENT and world.pids[1] in [
                row[0] for row in workers(world.switch).values()
            ]:
                number = numbers[sent % len(numbers)]
                epoch = world.run(f"said['epoch'] = test.reserved[{number}][0]")["epoch"]
                sent += int(str(world.run(MESSAGES, seed=sent, count=499, port=number, epoch=epoch)["sent"]))
        world.check_talk_only()
        world.mallory.close()
        wait_for(
            lambda: len(os.listdir(f"/proc/{supervisor_of(world.switch)}/fd")) <= fds + 16,
            "descriptors to be closed",
        )


def marked(numbers: range) -> list[bytes]:
    """Return broadcasts of a newcomer."""
    return [build_frame(BROADCAST, mac(50), 60) + MARK + bytes([number]) for number in numbers]


@contextlib.contextmanager
def spares_stopped(switch: Switch) -> Iterator[None]:
    """Stop the workers that wait for a port, so that a VM that comes has to wait."""
    serving = {port["worker"]["pid"] for port in ask(switch)["ports"]}

    def spares() -> list[int]:
        doors = [int(path.stem) for path in Path(switch.runtime_dir).glob("*.channel")]
        return [pid for pid in doors if pid not in serving]

    wait_for(lambda: len(spares()) >= 2, "two spares")
    stopped = spares()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def test_a_port_that_is_isolated_while_a_vm_comes_to_a_reserved_port_does_not_hear_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world_of(monkeypatch) as world, keeping(world, KEEP + KEEP_RESERVED) as numbers:
        switch = world.switch
        world.talk.settle()
        with spares_stopped(switch):
            newcomer = switch.connect("unix")
            newcomer.send(*marked(range(10)))
            number = wait_for(
                lambda: next(
                    (port["port"] for port in ask(switch)["ports"] if port["state"] == "starting"), None
                ),
                "the newcomer to have a worker that does not forward",
            )
            assert number in numbers, "mallory has its ring already"
            setting = threading.Thread(
                target=switch.command, args=("set", world.ports[1]["name"], "isolated=true")
            )
            setting.start()
            wait_for(
                lambda: port_of(switch, world.ports[1]["name"])["settings"]["isolated"],
                "mallory to be isolated",
            )
        live(switch, PRESENT + 1)
        setting.join()
        newcomer.send(*marked(range(10, 20)))
        for frame in marked(range(20)):
            world.alice.receive_matching(lambda each, frame=frame: each == frame)  # type: ignore[misc]
        said = world.run(LISTEN, mark=MARK)
        assert str(number) in said["kept"]  # type: ignore[operator]
        assert said["heard"] == []
        assert workers(switch).items() >= world.before.items(), "no worker was replaced"

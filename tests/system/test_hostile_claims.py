"""A worker that a guest has taken over, and a supervisor that comes after a dead one: whose word counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.guests.fake_vm import mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, kill_supervisor, port_of, workers
from tests.helpers.taken_over.world import USERS, World, taken_over

LISTENERS = {"qemu": True, "bess": True, "vfkit": 1}


@contextlib.contextmanager
def world_of(monkeypatch: pytest.MonkeyPatch, user: int | None = None) -> Iterator[World]:
    with taken_over(monkeypatch, lambda switch: switch.arguments(**LISTENERS), user=user) as (switch, taken):  # type: ignore[arg-type]
        yield World(switch, taken, user)


def next_supervisor(switch: Switch) -> None:
    kill_supervisor(switch)
    switch.start(*switch.arguments(**LISTENERS))  # type: ignore[arg-type]


@pytest.mark.parametrize("user", USERS)
def test_a_worker_cannot_bring_the_port_of_another_vm(
    monkeypatch: pytest.MonkeyPatch, user: int | None
) -> None:
    with world_of(monkeypatch, user) as world:
        alice = world.ports[2]
        world.switch.command("set", alice["name"], f"pin={mac(2).hex(':')}")
        lie = (
            f"worker._record = worker._record._replace(port={alice['port']}, name={alice['name']!r}, "
            f"epoch={alice['worker']['epoch']}, born={alice['worker']['epoch']}, "
            f"policy=names.Policy(pinned=({mac(2)!r},)))"
        )
        with world.talk.going_on():
            world.run(lie)
            next_supervisor(world.switch)
        world.check_talk_only()
        others = {name: row for name, row in world.before.items() if name != world.ports[1]["name"]}
        assert workers(world.switch).items() >= others.items()
        assert f"its worker {world.pids[1]} had port {world.ports[1]['port']}" in world.switch.log()
        wait_for(lambda: not Path(f"/proc/{world.pids[1]}").exists(), "mallory's worker to end")


def test_a_worker_cannot_free_its_port_of_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with world_of(monkeypatch) as world:
        name, friend = world.ports[1]["name"], world.ports[2]["name"]
        world.switch.command("set", name, "isolated=true", f"reach={friend}", "limit-macs=3")
        before = port_of(world.switch, name)["settings"]
        cell = ask(world.switch)["supervisor"]["cell"]
        with world.talk.going_on():
            world.run(
                "worker._record = worker._record._replace(policy=names.Policy())\n"
                "worker._birthright.cell = names.Cell((), 0)"
            )
            next_supervisor(world.switch)
        world.check_talk_only()
        assert workers(world.switch) == world.before
        assert port_of(world.switch, name)["settings"] == before
        assert ask(world.switch)["supervisor"]["cell"] == cell


def test_what_a_worker_brings_with_a_new_channel_hides_no_figure_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world_of(monkeypatch) as world:
        name = world.ports[1]["name"]
        with world.talk.going_on():
            world.run(
                "stats = worker._fds.stats\n"
                "worker._birthright.proc = (stats, stats)\n"
                "worker._birthright.cell = names.Cell((), 0)\n"
                "worker._channel._channel._sock.shutdown(2)"
            )
            wait_for(lambda: "its worker's channel is back" in world.switch.log(), "another channel")
        stats = {port["name"]: port for port in ask(world.switch, "stats")["ports"]}
        assert all(port["worker"]["pss_bytes"] for port in stats.values()), stats[name]
        assert ask(world.switch)["supervisor"]["cell"]["in_force"]
        world.check()


def test_a_worker_that_ends_its_channel_again_and_again_is_met_with_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with world_of(monkeypatch) as world:
        with world.talk.going_on():
            world.run(
                "channel, old = worker._channel, worker._channel.seek\n"
                "def seek(now):\n"
                "    was_lost, why = channel._channel is None, old(now)\n"
                "    if was_lost and channel._channel is not None:\n"
                "        channel._channel._sock.shutdown(2)\n"
                "    return why\n"
                "channel.seek = seek\n"
                "worker._channel._channel._sock.shutdown(2)"
            )
            wait_for(lambda: "its worker's channel is back" in world.switch.log(), "another channel")
            wait_for(lambda: world.switch.log().count("its worker's channel is back") >= 2, "and another one")
        assert world.switch.log().count("its worker's channel is back") <= 3
        world.check_talk_only()

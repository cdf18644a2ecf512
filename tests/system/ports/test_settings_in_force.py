"""When ``set`` has returned, the settings are in force: for a port that waits, that starts, that forwards."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from supervisor.attach.addresses import SCHEMES
from supervisor.console.client import Client
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, connect, mac
from tests.helpers.guests.ports import attach, gets_through, port
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import kill_supervisor

StartSwitch = Callable[..., Switch]
CROWD = 8


def good(number: int) -> bytes:
    return build_frame(BROADCAST, mac(number), 70, seed=number)


def spoofed(number: int) -> bytes:
    return build_frame(BROADCAST, mac(100 + number), 80, seed=number)


def states(client: Client) -> dict[str, str]:
    answer = cast(dict[str, Any], client.ask("status"))
    return {each["name"]: each["state"] for each in answer["ports"]}


def pin(client: Client, name: str, number: int) -> dict[str, Any]:
    return cast(dict[str, Any], client.ask("set", target=name, settings={"pin": [mac(number).hex(":")]}))


def heard(observer: FakeVM, wanted: set[bytes]) -> list[bytes]:
    """Wait until the observer has every wanted frame; return all that it got."""
    seen: list[bytes] = []

    def all_there() -> bool:
        seen.extend(observer.drain())
        return wanted <= set(seen)

    wait_for(all_there, lambda: f"{len(wanted)} frames; {len(wanted & set(seen))} are there")
    return seen


def until_heard(source: FakeVM, frame: bytes, target: FakeVM) -> list[bytes]:
    """Send a frame until the target has it; return all that it got."""
    seen: list[bytes] = []

    def is_there() -> bool:
        source.send(frame)
        seen.extend(target.drain())
        return frame in seen

    wait_for(is_there, "the frame to come")
    return seen


@contextlib.contextmanager
def no_more_workers(running: Switch) -> Iterator[None]:
    """Have the template stopped, so that there are only the workers that wait for a port."""
    (template,) = (
        pid
        for pid in running.processes()
        if Path(f"/proc/{pid}/comm").read_text().strip() == "worker-template"
    )
    os.kill(template, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(template, signal.SIGCONT)


def test_a_pin_that_is_set_while_ports_wait_for_their_workers_is_in_force(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    observer = attach(running, "observer")
    running.wait_live(1)
    found: dict[str, str] = {}
    with no_more_workers(running), Client(str(running.runtime_dir)) as client:
        crowd = [running.connect("unix") for _ in range(CROWD)]
        wait_for(lambda: len(states(client)) == CROWD + 1, "the crowd to be attached")
        for name, state in states(client).items():
            if name == "observer":
                continue
            found[name] = state
            number = int(name.partition("-")[2])
            answer = cast(
                dict[str, Any], client.ask("set", target=name, settings={"pin": [mac(number).hex(":")]})
            )
            assert answer["confirmed"]
            vm = crowd[number - 2]  # port 1 is the observer's, and they were accepted in this order
            vm.send(spoofed(number), good(number))
    assert len(set(found.values()) - {"live"}) >= 1, f"all were live before they were told: {found}"
    numbers = [int(name.partition("-")[2]) for name in found]
    seen = heard(observer, {good(number) for number in numbers})
    assert not {spoofed(number) for number in numbers}.intersection(seen)
    wait_for(
        lambda: all(port(running, name)["drops"]["spoofed"] == 1 for name in found), "each to be counted once"
    )


def test_settings_of_a_live_port_are_in_force_when_the_answer_comes(switch: StartSwitch) -> None:
    running = switch()
    observer, vm = attach(running, "observer"), attach(running, "web")
    running.wait_live(2)
    with Client(str(running.runtime_dir)) as client:
        for number in range(1, 60):
            assert pin(client, "web", number)["confirmed"]
            vm.send(spoofed(number), good(number))
    seen = heard(observer, {good(number) for number in range(1, 60)})
    assert not {spoofed(number) for number in range(1, 60)}.intersection(seen)


def test_a_stopped_worker_does_not_keep_the_operator_waiting(switch: StartSwitch) -> None:
    running = switch()
    _vm = attach(running, "web")
    running.wait_live(1)
    (worker,) = (each["worker"]["pid"] for each in running.json("status")["ports"])
    os.kill(worker, signal.SIGSTOP)
    try:
        done = running.command("set", "web", f"pin={mac(1).hex(':')}")  # which gives up after ten seconds
        assert "has not confirmed that yet" in done.stderr
    finally:
        os.kill(worker, signal.SIGCONT)


def test_a_worker_that_has_not_confirmed_the_isolation_of_another_port_is_named(switch: StartSwitch) -> None:
    running = switch()
    vms = [attach(running, name) for name in ("web", "friend", "db")]
    pids = {each["name"]: each["worker"]["pid"] for each in running.wait_live(len(vms))}
    os.kill(pids["db"], signal.SIGSTOP)
    try:
        done = running.command("set", "web", "isolated=true", "reach=friend")
        assert "db: its worker has not confirmed that yet" in done.stderr
        assert "db: ports that are out of reach now may hear its floods" in done.stderr
    finally:
        os.kill(pids["db"], signal.SIGCONT)
    done = running.command("set", "web", "isolated=true", "reach=")
    assert done.stderr == ""


def test_isolation_is_in_force_at_all_workers_when_the_answer_comes(switch: StartSwitch) -> None:
    running = switch()
    web, friend, db = (attach(running, name) for name in ("web", "friend", "db"))
    running.wait_live(3)
    of_web: set[bytes] = set()
    of_db: set[bytes] = set()
    before: set[bytes] = set()
    with Client(str(running.runtime_dir)) as client:
        for number in range(40):
            apart = number % 2 == 0
            settings = {"isolated": apart, "reach": ["friend"] if apart else []}
            answer = cast(dict[str, Any], client.ask("set", target="web", settings=settings))
            assert (answer["unconfirmed"], answer["unmoved"]) == ([], [])
            if apart:
                of_web.add(build_frame(BROADCAST, mac(1), 70, seed=number))
                of_db.add(build_frame(BROADCAST, mac(2), 80, seed=number))
                web.send(build_frame(BROADCAST, mac(1), 70, seed=number))
                db.send(build_frame(BROADCAST, mac(2), 80, seed=number))
                before.update(
                    heard(friend, (of_web | of_db) - before)
                )  # so it has left before they may talk again
    for source, number, target, never in ((web, 1, db, of_web), (db, 2, web, of_db)):
        assert never.isdisjoint(until_heard(source, build_frame(BROADCAST, mac(number), 90), target))


@pytest.mark.parametrize("way", ["configured", "attached"])
@pytest.mark.parametrize("transport", ["qemu", "bess"])
def test_a_pinned_vm_that_reconnects_after_a_takeover_is_taken(
    switch: StartSwitch, tmp_path: Path, way: str, transport: str
) -> None:
    path = tmp_path / "s"
    scheme = SCHEMES[transport][0]
    url, own = f"{scheme}://{path}", mac(1).hex(":")
    config = tmp_path / "config.toml"
    flag = f"listen-{transport}"
    if way == "configured":
        config.write_text(f'{flag} = [{{ url = "{url}", pin = ["{own}"] }}]')
    else:
        config.write_text("")

    def open_listener() -> None:
        if way == "attached":
            running.command("attach", f"--{flag}", url, "--pin", own)

    running = switch("--config", str(config))
    open_listener()
    first = connect(url)
    running.wait_live(1)
    kill_supervisor(running)
    running.start("--config", str(config))
    second = connect(url)  # before the switch can know that the first has gone
    first.close()
    wait_for(lambda: [each["port"] for each in running.ports()] == [2], "the port of the second connection")
    running.wait_live(1)
    assert "refused" not in running.log()
    other = attach(running, "other")
    wait_for(lambda: gets_through(second, other, good(1)), "its frames to pass")

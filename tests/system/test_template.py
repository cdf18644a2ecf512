"""The template of workers in a switch that runs: killed, left behind, and of another version on disk."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import mac
from tests.helpers.guests.fixtures import running_switch
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import check
from tests.helpers.probes import kill_supervisor

StartSwitch = Callable[..., Switch]
PACKAGES = ("forwarder", "gateway", "supervisor", "workers")
NAME = "worker-template"


def templates(running: Switch) -> list[int]:
    found = []
    for pid in running.processes():
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == NAME:
                found.append(pid)
        except OSError:
            continue  # it has ended meanwhile
    return found


def template(running: Switch) -> int:
    wait_for(lambda: len(templates(running)) == 1, lambda: f"one template, there are {templates(running)}")
    return templates(running)[0]


def test_a_template_that_is_killed_costs_nobody_anything(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    talk = Conversation(running.connect("unix"), mac(1), running.connect("unix"), mac(2))
    talk.begin()
    with talk.going_on():
        for number in range(3, 9, 2):  # more VMs than there are spares
            os.kill(template(running), signal.SIGKILL)
            late = Conversation(
                running.connect("unix"), mac(number), running.connect("unix"), mac(number + 1)
            )
            late.begin()
            assert late.flows()
    assert talk.lost == 0
    assert all(port["worker"]["restarts"] == 0 for port in running.ports())
    check(talk, running)


def layout(pid: int) -> str:
    """Return where the C library lies in a process."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(line.partition("-")[0] for line in lines if "/libc.so" in line)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_after_a_crash_the_port_gets_a_worker_with_another_layout(
    switch: StartSwitch, number: signal.Signals
) -> None:
    running = switch(bess=True)
    talk = Conversation(running.connect("unixpacket"), mac(1), running.connect("unixpacket"), mac(2))
    talk.begin()
    before = template(running)
    first, second = (port["worker"]["pid"] for port in running.ports())
    known = layout(first)
    assert layout(second) == layout(before) == known
    os.kill(first, number)
    wait_for(lambda: running.ports()[0]["worker"]["restarts"] == 1, "another worker")
    running.wait_live(2)
    after = [port["worker"]["pid"] for port in running.ports()]
    assert after[1] == second
    assert template(running) != before
    assert layout(after[0]) == layout(template(running)) != known
    late = Conversation(running.connect("unixpacket"), mac(3), running.connect("unixpacket"), mac(4))
    late.begin()
    assert known not in [layout(port["worker"]["pid"]) for port in running.ports()[2:]]


def test_the_template_of_a_dead_supervisor_ends_and_its_workers_go_on(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    talk = Conversation(running.connect("unix"), mac(1), running.connect("unix"), mac(2))
    talk.begin()
    before = template(running)
    os.kill(before, signal.SIGSTOP)
    with talk.going_on():
        kill_supervisor(running)
        wait_for(lambda: before not in templates(running), "the stopped template to end")
        running.start(*running.arguments(qemu=True))
        assert template(running) != before
    assert talk.lost == 0
    check(talk, running)


def test_a_switch_forks_the_version_that_it_is_itself(tmp_path: Path) -> None:
    """The files on disk change while it runs: it goes on with what it has; the next one has the new ones."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "bulkhead.py", tmp_path)
    with running_switch(wrap=lambda command: ["env", "--chdir", str(tmp_path), *command]) as running:
        running.start(*running.arguments(qemu=True))
        talk = Conversation(running.connect("unix"), mac(1), running.connect("unix"), mac(2))
        talk.begin()
        changed = tmp_path / "workers" / "template.py"
        before = changed.read_text()
        changed.write_text("raise SystemExit(3)\n")
        late = Conversation(running.connect("unix"), mac(3), running.connect("unix"), mac(4))
        more = Conversation(running.connect("unix"), mac(5), running.connect("unix"), mac(6))
        for each in (late, more):
            each.begin()
            assert each.flows()
        changed.write_text(before.replace(f'"{NAME}"', '"worker-new"'))
        kill_supervisor(running)
        running.start(*running.arguments(qemu=True))
        assert all(port["worker"]["restarts"] == 0 for port in running.ports())
        assert talk.flows()
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in running.processes()}
        assert "worker-new" in names
        assert NAME not in names

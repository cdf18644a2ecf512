"""A supervisor that answers nothing: each command says so in one line, and the VMs go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.guests.fake_vm import build_frame, mac
from tests.helpers.guests.ports import attach, meet
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.web import Web

StartSwitch = Callable[..., Switch]
COMMANDS = (
    ("status",),
    ("stats", "--since", "1m"),
    ("top",),
    ("macs",),
    ("leases",),
    ("events", "--follow"),
    ("explain", "web", "db"),
    ("show", "web"),
    ("set", "web", "isolated=true"),
    ("forward", "list"),
    ("capture", "all", "-w", "/dev/null"),
)


@contextlib.contextmanager
def stopped(running: Switch) -> Iterator[None]:
    assert running.process is not None
    os.kill(running.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(running.process.pid, signal.SIGCONT)


def test_each_command_says_so_in_one_line(switch: StartSwitch) -> None:
    running = switch()
    web, db = attach(running, "web"), attach(running, "db")
    running.wait_live(2)
    meet({1: web, 2: db})
    with stopped(running):
        begun = [
            subprocess.Popen(
                running._command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for words in COMMANDS
        ]
        web.send(frame := build_frame(mac(2), mac(1), 700))
        db.receive_matching(frame.__eq__)
        ended = [each.communicate(timeout=PATIENCE) for each in begun]
    for words, process, (_, said) in zip(COMMANDS, begun, ended, strict=True):
        assert process.returncode == 1, words
        assert said.count("\n") == 1, said
        assert "has not answered for" in said, words
        assert f"`kill -CONT {running.process.pid}`" in said, words
    assert running.json("show", "web")["settings"]["isolated"] in (True, False)


@pytest.mark.timeout(120)
def test_the_page_shows_that_the_switch_is_silent(switch: StartSwitch) -> None:
    running = switch()
    with contextlib.closing(Web(running.runtime_dir)) as served:
        wait_for(lambda: "bulkhead_up 1.0" in served.get("/metrics")[1], "the switch", PATIENCE)
        with stopped(running):
            wait_for(lambda: "bulkhead_up 0.0" in served.get("/metrics")[1], "its silence", PATIENCE)
            status, said = served.get("/api/status")
            assert (status, "has not answered" in said) == (503, True)
        wait_for(lambda: "bulkhead_up 1.0" in served.get("/metrics")[1], "its return", PATIENCE)

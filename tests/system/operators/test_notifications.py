"""``supervisor run --notification`` with a real switch and a program that listens."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

StartSwitch = Callable[..., Switch]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "n"))
        sock.listen(64)
        sock.settimeout(PATIENCE)
        yield sock


def next_of(program: socket.socket) -> dict[str, str]:
    connection, _ = program.accept()
    with connection, connection.makefile("rb") as stream:
        message: dict[str, str] = json.loads(stream.read())
    return message


def test_a_program_hears_of_the_switch_and_of_its_vms(
    switch: StartSwitch, program: socket.socket, tmp_path: Path
) -> None:
    running = switch("--notification", f"unix://{tmp_path}/n", bess=True)
    assert next_of(program) == {"notification_type": "ready"}
    vm = connect(f"unixpacket://{running.bess}")
    vm.send(build_frame(BROADCAST, mac(1)))
    assert next_of(program) == {
        "notification_type": "connection_established",
        "mac_address": mac(1).hex(":"),
    }
    vm.close()
    assert next_of(program) == {"notification_type": "connection_closed", "mac_address": mac(1).hex(":")}


def test_a_program_that_is_not_there_is_a_line_in_the_log(switch: StartSwitch, tmp_path: Path) -> None:
    running = switch("--notification", f"unix://{tmp_path}/none")
    wait_for(lambda: "no program listens there" in running.log(), "the line in the log")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("unix:///run/n", "would send notifications to /run/n"),
        ("/run/n", "would send notifications to /run/n"),
        ("run/n", "Error: 'run/n' is no address for notifications; write it as unix:///PATH"),
    ],
)
def test_check_names_the_program_or_the_fault(url: str, line: str, tmp_path: Path) -> None:
    done = Switch(tmp_path).command("run", "--check", "--notification", url, check=False)
    assert line in (done.stderr + done.stdout).splitlines()

"""Notifications: gvproxy's four kinds, one connection each; a program that does not listen delays no VM."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.errors import LocalError
from supervisor.attach.notifications import AGAIN_S, MOST, Notifications, parse
from supervisor.base.logs import log, say

MAC, OTHER = "52:54:00:00:00:0a", "52:54:00:00:00:0b"


pytestmark = pytest.mark.usefixtures("quiet_log")


class Program:
    """A program that listens for notifications."""

    def __init__(self, path: Path, backlog: int = 64) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen(backlog)
        self._sock.settimeout(0.0)

    def heard(self) -> list[tuple[str, str]]:
        """Return kind and address of each message that has come."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._sock.accept()
                with connection, connection.makefile("rb") as stream:
                    text = stream.read()
                assert text.endswith(b"}\n")
                assert text.count(b"\n") == 1
                message = json.loads(text)
                found.append((message.pop("notification_type"), message.pop("mac_address", "")))
                assert not message
        return found

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with contextlib.closing(Program(tmp_path / "n")) as listening:
        yield listening


@pytest.fixture
def sent(tmp_path: Path, program: Program) -> Iterator[Notifications]:
    notifications = Notifications(str(tmp_path / "n"))
    yield notifications
    notifications.end()


def new(mac: str, port: int = 1) -> None:
    say("mac-new", "its VM uses an address", port=port, mac=mac)


def gone(port: int = 1) -> None:
    say("gone", "gone", port=port, reason="its VM left")


def test_the_four_kinds_are_as_gvproxy_says_them(sent: Notifications, program: Program) -> None:
    say("ready", "ready")
    say("attach", "port 1: attached", port=1)
    new(MAC)
    say("attach-refused", "a VM was refused")
    say("set", "something else")
    gone()
    assert program.heard() == [
        ("ready", ""),
        ("connection_established", MAC),
        ("hypervisor_error", ""),
        ("connection_closed", MAC),
    ]


def test_each_address_of_a_vm_is_closed_once_at_the_port_where_it_is(
    sent: Notifications, program: Program
) -> None:
    new(MAC)
    new(OTHER)
    say("mac-moved", "moved", port=2, former_port=1, mac=OTHER)
    program.heard()
    gone(1)
    assert program.heard() == [("connection_closed", MAC)]
    gone(1)
    gone(2)
    assert program.heard() == [("connection_closed", OTHER)]


def test_after_a_takeover_the_end_of_a_known_vm_is_told(tmp_path: Path, program: Program) -> None:
    earlier = [
        {"event": "mac-new", "port": 1, "mac": MAC},
        {"event": "mac-new", "port": 2, "mac": OTHER},
    ]
    sent = Notifications(str(tmp_path / "n"), earlier)
    assert program.heard() == []
    gone(1)
    assert program.heard() == [("connection_closed", MAC)]
    say("attach", "another VM", port=2)  # port 2 was lost with the supervisor
    gone(2)
    assert program.heard() == []
    sent.end()


def test_the_gateway_is_no_vm(sent: Notifications, program: Program) -> None:
    new("5a:94:ef:e4:0c:dd")
    gone()
    assert program.heard() == []


def test_a_program_that_accepts_slowly_gets_all_in_order_and_delays_nothing(tmp_path: Path) -> None:
    with contextlib.closing(Program(tmp_path / "slow", backlog=0)) as slow:
        sent = Notifications(str(tmp_path / "slow"))
        began = time.monotonic()
        for number in range(20):
            new(f"52:54:00:00:00:{number:02x}")
        assert time.monotonic() - began < AGAIN_S * 10
        heard = slow.heard()
        assert len(heard) < 20
        while len(heard) < 20:
            assert sent.deadline() < float("inf")
            sent.tick(sent.deadline())
            heard += slow.heard()
        assert [mac for _, mac in heard] == [f"52:54:00:00:00:{number:02x}" for number in range(20)]
        assert sent.deadline() == float("inf")
        sent.end()


def test_what_waits_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log.propagate = True
    with contextlib.closing(Program(tmp_path / "stuck", backlog=0)) as stuck:
        sent = Notifications(str(tmp_path / "stuck"))
        for number in range(2 * MOST):
            new(f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}")
        assert "takes no notifications; one is dropped" in caplog.text
        heard = stuck.heard()
        while sent.deadline() < float("inf"):
            sent.tick(sent.deadline())
            heard += stuck.heard()
        assert MOST <= len(heard) < MOST + 5
        sent.end()


def test_without_a_program_messages_are_dropped_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log.propagate = True
    sent = Notifications(str(tmp_path / "none"))
    new(MAC)
    assert f"{tmp_path}/none gets no notification: no program listens there" in caplog.text
    with contextlib.closing(Program(tmp_path / "none")) as late:
        gone()
        assert late.heard() == [("connection_closed", MAC)]
    sent.end()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("tcp://127.0.0.1:1", "write it as unix:///PATH"),
        ("n.sock", "write it as unix:///PATH"),
        ("unix://n.sock", r"write unix:///n.sock \(three slashes\) or the path alone"),
        ("unix://", "names no file"),
        ("unix:///" + "n" * 200, "too long"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, why: str) -> None:
    with pytest.raises(LocalError, match=why):
        parse(url)


@pytest.mark.parametrize("url", ["unix:///run/n.sock", "/run/n.sock", "/run/../run//n.sock"])
def test_a_path_stands_for_the_address(url: str) -> None:
    assert parse(url) == "/run/n.sock"

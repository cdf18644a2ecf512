"""The pid file: whole or not there, and never at the cost of a file that is none. What systemd is told."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder.errors import LocalError
from supervisor.base import runtime_dir
from supervisor.base.runtime_dir import RuntimeDir
from supervisor.cli.announce import PidFile, check_pid_file
from tests.helpers.guests.switch import ROOT


def test_a_pid_file_has_the_pid_and_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    assert path.read_text() == str(os.getpid()), "no newline: gvproxy writes none, and podman reads none"
    assert path.stat().st_mode & 0o777 == 0o644
    file.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "4711", "4711\n", " 12 \n"])
def test_an_earlier_pid_file_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pid"
    path.write_text(text)
    PidFile(str(path)).close()
    assert not path.exists()


@pytest.mark.parametrize("text", ["thesis", "12 monkeys", "1\n2\n", "-1", "1" * 17])
def test_a_file_that_holds_no_process_id_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thesis"
    path.write_text(text)
    with pytest.raises(LocalError, match="holds no process id; move it away"):
        PidFile(str(path))
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_of_a_running_switch_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, switch = tmp_path / "pid", tmp_path / "switch"
    held = RuntimeDir(str(switch))
    monkeypatch.setattr(runtime_dir, "running", lambda: [str(switch)])
    file = PidFile(str(path))
    for attempt in (PidFile, check_pid_file):
        with pytest.raises(LocalError, match=r"is that of the switch in .*; choose another"):
            attempt(str(path))
    held.close()
    PidFile(str(path)).close()
    file.close()
    assert not path.exists()


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "4711", tmp_path / "pid"
    for exists in (True, False):
        target.write_text("4711") if exists else target.unlink()
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(LocalError, match="is a link, which is never followed"):
            PidFile(str(link))
        assert link.is_symlink()
        assert target.exists() == exists


def test_a_path_that_is_not_a_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for attempt in (PidFile, check_pid_file):
        with pytest.raises(LocalError, match="holds no process id"):
            attempt(str(tmp_path / "fifo"))
        with pytest.raises(LocalError, match="is a directory; choose another"):
            attempt(str(tmp_path))
        with pytest.raises(LocalError, match="No such file or directory; choose another"):
            attempt(str(tmp_path / "no" / "pid"))


def test_at_the_end_only_the_own_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    path.rename(tmp_path / "moved")
    path.write_text(str(os.getpid()))
    file.close()
    assert path.exists()


def test_a_systemd_that_reads_nothing_does_not_hold_the_switch(tmp_path: Path) -> None:
    code = "from supervisor.cli.announce import tell_systemd; tell_systemd('READY=1')"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        stuck.bind(str(tmp_path / "notify"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"x", str(tmp_path / "notify"))
        env = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=True, timeout=60)

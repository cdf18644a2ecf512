"""A runtime directory has one supervisor and is ours alone; one that cannot be used costs one line."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.errors import LocalError
from forwarder.rendezvous import CONSOLE, LOCK
from supervisor.base import runtime_dir
from supervisor.base.runtime_dir import EPOCH_STRIDE, RuntimeDir
from tests.helpers.guests.fixtures import short_directory

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def refused(path: Path) -> str:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(LocalError) as caught:
        RuntimeDir(str(path))
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    assert sorted(path.parent.rglob("*")) == before, "something was left behind"
    return line


def test_the_directory_is_private_and_removed_at_the_end(place: Path) -> None:
    held = RuntimeDir(str(place / "run"))
    assert stat.S_IMODE(os.stat(held.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(held.file(LOCK)).st_mode) == 0o600
    assert Path(held.file(LOCK)).read_text().split()[0] == str(os.getpid())
    held.close()
    assert not (place / "run").exists()


def test_an_existing_directory_and_files_of_others_stay(place: Path) -> None:
    (place / "mine").write_text("x")
    held = RuntimeDir(str(place))
    held.close()
    assert os.listdir(place) == ["mine"]


def test_the_directory_of_a_live_supervisor_is_refused_with_its_pid(place: Path) -> None:
    held = RuntimeDir(str(place / "run"))
    assert f"(pid {os.getpid()})" in refused(place / "run")
    held.close()
    RuntimeDir(str(place / "run")).close()


def test_a_live_supervisor_whose_lock_was_deleted_loses_nothing(place: Path) -> None:
    held = RuntimeDir(str(place / "run"))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(held.file(CONSOLE))
    os.unlink(held.file(LOCK))
    assert "its lock was deleted" in refused(place / "run")
    assert os.listdir(held.path) == [CONSOLE]
    assert held.mend() == f"{held.file(LOCK)} was deleted"
    listening.close()
    held.close()


def test_a_failed_start_leaves_the_text_of_a_predecessor(place: Path) -> None:
    run = place / "run"
    run.mkdir(0o700)
    (run / LOCK).write_text("12\n34\n56\n")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(run / CONSOLE))
        refused(run)
    assert (run / LOCK).read_text() == "12\n34\n56\n"


def test_an_emptied_lock_is_signed_again(place: Path) -> None:
    held = RuntimeDir(str(place / "run"))
    text = Path(held.file(LOCK)).read_text()
    assert held.mend() == ""
    os.truncate(held.file(LOCK), 0)
    assert held.mend() == f"{held.file(LOCK)} was emptied"
    assert Path(held.file(LOCK)).read_text() == text
    held.close()


def test_the_directory_of_a_dead_supervisor_is_taken_over_with_its_stale_sockets(place: Path) -> None:
    code = (
        "import os, sys; "
        "from supervisor.base.runtime_dir import RuntimeDir; RuntimeDir(sys.argv[1]); os._exit(9)"
    )
    for life in range(3):
        subprocess.run([sys.executable, "-c", code, str(place)], check=False)
        (place / CONSOLE).touch()
        held = RuntimeDir(str(place))
        assert held.predecessor is not None
        assert held.predecessor.pid != os.getpid()
        assert held.epoch > held.predecessor.epoch
        assert held.first_epoch == held.predecessor.first_epoch + EPOCH_STRIDE
        assert os.listdir(place) == [LOCK]
        held.close(keep_lock=life < 2)
    held = RuntimeDir(str(place))
    assert held.predecessor is None
    assert held.first_epoch == 1
    held.close()


def test_a_half_written_lock_counts_as_the_lock_of_a_dead_supervisor(place: Path) -> None:
    for text in ("12x", "12", "12\n34", "12\n34\n5x"):
        (place / LOCK).write_text(text)
        before = time.time_ns()
        held = RuntimeDir(str(place))
        assert held.predecessor is not None
        assert held.first_epoch > before, "past anything that those before can have given out"
        held.close()


def test_a_directory_that_is_open_to_others_is_refused(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o755)
    assert "chmod 700" in refused(place / "open")


def test_a_file_and_a_link_are_refused(place: Path) -> None:
    (place / "file").touch()
    (place / "real").mkdir(mode=0o700)
    (place / "link").symlink_to(place / "real")
    assert "no directory" in refused(place / "file")
    assert "no directory" in refused(place / "link")


@root_only
def test_a_directory_of_another_user_is_refused(place: Path) -> None:
    (place / "theirs").mkdir(mode=0o700)
    os.chown(place / "theirs", 12345, 12345)
    assert "belongs to user 12345" in refused(place / "theirs")


def test_a_missing_parent_directory_is_reported(place: Path) -> None:
    assert "make the directory above it first" in refused(place / "no" / "run")


def test_a_path_too_long_for_its_sockets_is_refused(place: Path) -> None:
    base = len(os.fsencode(place)) + 1 + len("/4194304.members")
    longest = place / ("x" * (107 - base))
    RuntimeDir(str(longest)).close()
    assert "too long by 1 bytes" in refused(place / ("x" * (108 - base)))


MOUNTED = """
import ctypes, os, sys
from forwarder.errors import LocalError
from supervisor.base.runtime_dir import RuntimeDir
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("{path}", 0o700, exist_ok=True)
if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):
    sys.exit(77)
if libc.mount(b"tmpfs", b"{path}", b"tmpfs", 0, b"size=64k,nr_inodes={inodes},mode=0700"):
    sys.exit(77)
if {fill}:
    with open("{path}/fill", "wb", 0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
if {read_only} and libc.mount(b"none", b"{path}", None, 0x20 | 1, None):
    sys.exit(77)
before = os.listdir("{path}")
try:
    RuntimeDir("{path}{below}")
except LocalError as error:
    assert os.listdir("{path}") == before
    print(error)
"""


@root_only
@pytest.mark.parametrize(
    ("fill", "inodes", "read_only", "below", "line"),
    [
        (True, 100, False, "", "no space left on device; free some space"),
        (False, 1, False, "", "no space left on device; free some space"),
        (False, 1, False, "/run", "no space left on device; free some space"),
        (False, 100, True, "", "read-only file system; choose a writable --runtime-dir"),
        (False, 100, True, "/run", "read-only file system; choose a writable --runtime-dir"),
    ],
)
def test_a_full_or_read_only_file_system_is_one_line(
    place: Path, fill: bool, inodes: int, read_only: bool, below: str, line: str
) -> None:
    code = MOUNTED.format(path=place / "fs", fill=fill, inodes=inodes, read_only=read_only, below=below)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("no mount namespaces here")
    assert done.stderr == ""
    assert line in done.stdout
    assert done.stdout.count("\n") == 1


def test_default(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    assert runtime_dir.default() == str(place / "bulkhead")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "absent"))
    assert runtime_dir.default() == f"/tmp/bulkhead-{os.geteuid()}"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_dir.default() == f"/tmp/bulkhead-{os.geteuid()}"

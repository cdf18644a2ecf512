"""The file of operators' changes: whole at any instant, and no other file is touched."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from forwarder.errors import LocalError
from supervisor.base import saved_state
from supervisor.base.saved_state import RETRY_S, SavedState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / saved_state.FILE


def test_the_next_supervisor_finds_the_last_value(path: Path) -> None:
    saved = SavedState(str(path), inherit=False)
    saved.put("gateway", {"forward": ["a"]})
    saved.put("attachments", [1])
    saved.put("gateway", {"forward": []})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    after = SavedState(str(path), inherit=True)
    assert (after.get("gateway"), after.get("attachments"), after.get("else")) == ({"forward": []}, [1], None)
    after.put("attachments", [2])
    assert SavedState(str(path), inherit=True).get("gateway") == {"forward": []}, (
        "a part that was not put again"
    )


def test_a_clean_end_leaves_nothing_and_another_one_all(path: Path) -> None:
    saved = SavedState(str(path), inherit=False)
    saved.put("a", 1)
    saved.close(keep=True)
    assert path.exists()
    saved.close(keep=False)
    assert list(path.parent.iterdir()) == []
    saved.close(keep=False)


def test_unchanged_state_is_not_written_again(path: Path) -> None:
    saved = SavedState(str(path), inherit=False)
    saved.put("a", [1])
    before = path.stat().st_ino
    saved.put("a", [1])
    assert path.stat().st_ino == before


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"{",
        b"[]",
        b'{"bulkhead": 2, "parts": {}}',
        b'{"bulkhead": 1}',
        b'{"bulkhead": 1, "parts": []}',
        b"\xff\xfe\0",
        b"[" * 100_000,
        b'{"bulkhead": 1, "parts": {"a": "' + b"x" * saved_state.MOST_BYTES + b'"}}',
        b"a thesis",
    ],
    ids=lambda found: repr(found[:20]),
)
def test_another_kind_of_file_is_set_aside_with_one_line(
    path: Path, found: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(found)
    saved_state.log.propagate = True
    saved = SavedState(str(path), inherit=True)
    assert saved.get("a") is None
    assert not path.exists()
    assert Path(f"{path}.refused").read_bytes() == found
    (line,) = caplog.messages
    assert "set aside" in line
    assert "\n" not in line
    saved.put("a", 1)
    assert SavedState(str(path), inherit=True).get("a") == 1


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "dangling"])
def test_a_path_that_is_not_a_file_is_not_followed_and_does_not_block(path: Path, kind: str) -> None:
    other = path.parent / "other"
    if kind == "link":
        other.write_text('{"bulkhead": 1, "parts": {"a": 1}}')
        path.symlink_to(other)
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
    saved = SavedState(str(path), inherit=True)
    assert saved.get("a") is None
    saved.put("a", 2)
    assert path.is_file()
    assert not path.is_symlink()
    assert not other.exists() or "1}}" in other.read_text()


def test_a_file_without_a_dead_predecessor_is_not_read(path: Path) -> None:
    SavedState(str(path), inherit=False).put("a", 1)
    assert SavedState(str(path), inherit=False).get("a") is None
    assert Path(f"{path}.refused").exists()


def test_a_file_that_cannot_be_moved_is_named(path: Path) -> None:
    path.write_text("not ours")
    Path(f"{path}.refused").mkdir()
    (Path(f"{path}.refused") / "full").touch()
    with pytest.raises(LocalError, match="move it away"):
        SavedState(str(path), inherit=True)


def test_the_rest_of_a_killed_writer_does_not_disturb(path: Path) -> None:
    beside = Path(f"{path}.new")
    beside.write_text("half of")
    saved = SavedState(str(path), inherit=False)
    saved.put("a", 1)
    assert not beside.exists()
    assert SavedState(str(path), inherit=True).get("a") == 1


def test_a_write_that_a_full_disk_cut_off_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    saved = SavedState(str(path), inherit=False)
    monkeypatch.setattr(os, "rename", full)  # as the write before it: the new file is there
    saved.put("a", 1)
    saved.close(keep=False)
    assert list(path.parent.iterdir()) == []


def test_a_disk_that_is_full_fails_nothing_and_is_tried_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved_state.log.propagate = True
    saved = SavedState(str(path / "no" / "where"), inherit=False)
    saved.put("a", 1)
    saved.put("a", 2)
    assert len(caplog.messages) == 1
    due = saved.deadline()
    assert due < float("inf")
    saved.tick(due - RETRY_S)
    (path / "no").mkdir(parents=True)
    saved.tick(due)
    assert saved.deadline() == float("inf")
    assert SavedState(str(path / "no" / "where"), inherit=True).get("a") == 2

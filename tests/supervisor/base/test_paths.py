"""Paths that operators name: relative to a directory that is there, and text that a message can hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from forwarder.errors import LocalError
from supervisor.base.paths import absolute
from supervisor.cli.main import main

COMMANDS = [
    ["run", "--runtime-dir", "run"],
    ["run", "--check", "--runtime-dir", "run"],
    ["run", "--listen-qemu", "./q.sock"],
    ["run", "--check", "--pid-file", "pid"],
    ["status", "--runtime-dir", "run"],
    ["show", "./q.sock"],
]


def test_a_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("./a/../b") == str(tmp_path / "b")
    assert absolute("//a//b/") == "/a/b"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("what", ["deleted", "not UTF-8"])
def test_a_working_directory_that_no_path_can_begin_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], what: str
) -> None:
    own = tmp_path / ("own" if what == "deleted" else os.fsdecode(b"\xff"))
    own.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(own)
    if what == "deleted":
        own.rmdir()
    done = CliRunner().invoke(main, words)
    assert done.exit_code in (1, 2)
    assert what in done.output.splitlines()[-1]
    assert [*tmp_path.rglob("*")] == ([] if what == "deleted" else [own])
    monkeypatch.chdir(tmp_path)


def test_an_absolute_path_needs_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    (tmp_path / "own").rmdir()
    assert absolute("/a") == "/a"
    with pytest.raises(LocalError, match="deleted"):
        absolute("a")
    monkeypatch.chdir(tmp_path)

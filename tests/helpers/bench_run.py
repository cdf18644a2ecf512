"""Running a benchmark as ``scripts/bench`` does, with all that it makes in a directory that must be empty."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.benchmarks.report.journal import Benchmark

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench_directory() -> Iterator[Path]:
    """A directory for all that a benchmark makes, with a path short enough for sockets; empty at the end."""
    path = Path(tempfile.mkdtemp(prefix="bh-"))
    try:
        yield path
        assert list(path.iterdir()) == []
    finally:
        shutil.rmtree(path)


def start(directory: Path, output: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks", *words, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def cells(text: str, benchmark: Benchmark) -> list[dict[str, str]]:
    """The rows of a table by column; columns of the same name keep the first one's place."""
    lines = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in text.splitlines()]
    assert lines[0] == list(benchmark.columns)
    assert all(len(line) == len(benchmark.columns) for line in lines)
    return [dict(zip(reversed(lines[0]), reversed(line), strict=True)) for line in lines[2:]]


def run(directory: Path, output: Path, benchmark: Benchmark, *words: str) -> list[dict[str, str]]:
    process = start(directory, output, benchmark.name, *words)
    try:
        out, err = process.communicate(timeout=250)
    finally:
        process.kill()
    assert not list(Path("/run").glob(f"netns/bh{process.pid}-*"))
    assert process.returncode == 0, err
    document = json.loads((output / f"{benchmark.name}.json").read_text())
    assert document["runs"]
    assert document["machine"]["kernel"]
    assert (output / f"{benchmark.name}.md").read_text() == out
    return cells(out, benchmark)

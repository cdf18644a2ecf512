"""The load generator: builds ``load/*.c`` on first use and runs it on sockets of fake VMs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.benchmarks.report.journal import MissingError
from scripts.benchmarks.report.machine import ROOT
from tests.helpers.guests.fake_vm import FakeVM

SOURCES = Path(__file__).parents[1] / "load"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-flto", "-Wall", "-Wextra", "-pthread")
# Half of what a ring or a socket's buffer holds: a path that has room for that much loses nothing.
WINDOW_BYTES = 512 * 1024
END_PATIENCE = 10.0


def build() -> Path:
    """Return the program, compiled if its sources have changed since the last time."""
    files = sorted(SOURCES.glob("*.[ch]"))
    compiler = os.environ.get("CC", "cc")
    digest = hashlib.sha256(" ".join([compiler, *FLAGS]).encode())
    for file in files:
        digest.update(file.read_bytes())
    program = ROOT / ".cache" / "bench" / f"load-{digest.hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        new = program.with_name(f"{program.name}.{os.getpid()}")
        try:
            subprocess.run(
                [compiler, *FLAGS, "-o", new, *[file for file in files if file.suffix == ".c"]], check=True
            )
        except FileNotFoundError as error:
            raise MissingError(f"no C compiler {compiler!r}: install one, or name it in CC") from error
        new.replace(program)
    return program


class Pair(NamedTuple):
    """Two VMs that talk, and their addresses."""

    one: FakeVM
    other: FakeVM
    one_mac: str
    other_mac: str

    def words(self) -> tuple[object, ...]:
        """Return what the program is told of them."""
        return (self.one.sock.fileno(), self.other.sock.fileno(), self.one_mac, self.other_mac)


def flow(
    kind: str, size: int, seconds: float, pair: Pair, *, window: int = WINDOW_BYTES, probe: bool = False
) -> dict[str, Any]:
    """Run a closed-loop flow from one to the other (load/flow.c) and return what it measured.

    With ``probe`` also round trips of small frames that go with it (load/probe.c), as "under_load".
    """
    words = (kind, size, window, seconds, *pair.words(), int(probe))
    with running("flow", words, pair[:2]) as process:
        return finish(process, seconds)


def echo(kind: str, size: int, seconds: float, pair: Pair) -> dict[str, Any]:
    """Measure round trips from one to the other and back (load/echo.c)."""
    with running("echo", (kind, size, seconds, *pair.words()), pair[:2]) as process:
        return finish(process, seconds)


def bound(size: int, seconds: float) -> dict[str, Any]:
    """Measure what it takes to copy a frame from guest to guest by way of a ring (load/bound.c)."""
    with running("bound", (size, seconds), ()) as process:
        return finish(process, seconds)


@contextlib.contextmanager
def running(
    mode: str, words: Sequence[object], vms: Sequence[FakeVM], descriptors: Sequence[int] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Have the program running in one of its modes; killed at the end if it is still there.

    ``descriptors`` are those that it needs beside the VMs'.
    """
    process = subprocess.Popen(
        [build(), mode, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[*(vm.sock.fileno() for vm in vms), *descriptors],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for vm in vms:
            vm.sock.setblocking(False)  # the program made it wait, which the two of us share


def finish(process: subprocess.Popen[str], seconds: float = 0.0) -> dict[str, Any]:
    """Wait for the program's end and return what it measured; raises RuntimeError with what it says."""
    out, err = process.communicate(timeout=seconds + END_PATIENCE)
    if process.returncode:
        raise RuntimeError(f"{err.strip()} (exit status {process.returncode})")
    result: dict[str, Any] = json.loads(out)
    return result


def stop(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Tell a mode that has no end of its own to end, and return what it measured."""
    process.terminate()
    return finish(process)

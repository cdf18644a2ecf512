"""Worker processes: watched whoever their parent is, reaped if we are, ended step by step."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Identity
from supervisor.base.proc import exists, start_time
from supervisor.pool import processes
from supervisor.pool.processes import DRAIN_S, KILL_S, Exit, Process, Processes
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fakes import reraise, turn_until
from tests.helpers.guests.waiting import wait_for


class Bench:
    def __init__(self) -> None:
        self.loop = Loop(reraise)
        self.ended: dict[Identity, tuple[bool, str]] = {}
        self.processes = Processes(self.loop, "/nowhere", self._ended)

    def start(self, code: str) -> Process:
        """Take a child of ours that runs this."""
        return self.processes.take(child(code))

    def _ended(self, identity: Identity, end: Exit) -> None:
        self.ended[identity] = (end.clean, end.how)

    def wait(self, identity: Identity) -> tuple[bool, str]:
        turn_until(self.loop, lambda: identity in self.ended)
        assert self.processes.get(identity) is None
        return self.ended[identity]


def child(code: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = open_descriptors()
    made = Bench()
    yield made
    for identity in [each.identity for each in made.processes._processes.values()]:
        os.kill(identity.pid, signal.SIGKILL)
        made.wait(identity)
    made.loop.close()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("code", "clean", "how"),
    [
        ("pass", True, "it ended with 0"),
        ("import sys; sys.exit(3)", False, "it ended with 3"),
        ("import os; os.kill(os.getpid(), 9)", False, "it was ended by SIGKILL"),
    ],
)
def test_how_a_process_ended_is_told(bench: Bench, code: str, clean: bool, how: str) -> None:
    identity = bench.start(code).identity
    assert bench.wait(identity) == (clean, how)
    assert not exists(identity)
    assert len(bench.processes) == 0


def test_one_that_was_told_gets_time_then_a_signal_then_is_killed(bench: Bench) -> None:
    process = bench.start(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    )
    turn_until(bench.loop, lambda: ignores_sigterm(process.identity.pid))
    bench.processes.end(process.identity, 100.0)
    bench.processes.end(process.identity, 100.5)
    assert bench.processes.deadline() == 100.0 + DRAIN_S
    bench.processes.tick(100.0 + DRAIN_S - 0.1)
    assert process.ending == 1
    bench.processes.tick(100.0 + DRAIN_S)
    assert process.ending == 2
    assert exists(process.identity)
    bench.processes.tick(100.0 + DRAIN_S + KILL_S)
    assert bench.wait(process.identity) == (False, "it was ended by SIGKILL")


def ignores_sigterm(pid: int) -> bool:
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in each)
    return bool(int(line.split()[1], 16) & 1 << signal.SIGTERM - 1)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_one_that_cannot_be_told_gets_the_signal_at_once(bench: Bench) -> None:
    identity = bench.start("import time; time.sleep(60)").identity
    bench.processes.end(identity, 0.0, notified=False)
    assert bench.wait(identity) == (False, "it was ended by SIGTERM")


def test_a_stopped_process_is_killed_all_the_same(bench: Bench) -> None:
    identity = bench.start("import time; time.sleep(60)").identity
    os.kill(identity.pid, signal.SIGSTOP)
    # A signal that comes before it has stopped is delivered first.
    wait_for(lambda: is_stopped(identity.pid), "the process to stop")
    bench.processes.end(identity, 0.0, notified=False)
    bench.processes.tick(KILL_S)
    assert bench.wait(identity) == (False, "it was ended by SIGKILL")


def test_a_process_that_is_not_our_child_is_watched_too(bench: Bench) -> None:
    """As a worker that another supervisor started is, after that one has died."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    identity = Identity(other.pid, start_time(other.pid))
    assert bench.processes.adopt(identity) is bench.processes.adopt(identity)
    bench.processes.end(identity, 0.0, notified=False)
    assert bench.wait(identity) == (True, "it ended")
    assert other.wait() == -signal.SIGTERM


def test_a_process_that_is_another_by_now_is_not_adopted(bench: Bench) -> None:
    with pytest.raises(LocalError, match="there is no worker process"):
        bench.processes.adopt(Identity(os.getpid(), 1))
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(LocalError, match="there is no worker process"):
        bench.processes.adopt(Identity(gone.pid, 1))
    assert len(bench.processes) == 0


def test_a_worker_that_cannot_be_watched_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    pid = child("import time; time.sleep(60)")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        with pytest.raises(LocalError, match="cannot watch a worker: Too many open files"):
            bench.processes.take(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert len(bench.processes) == 0


def test_survivors_are_found_by_their_command_line(tmp_path: Path) -> None:
    code = "import sys, time; print(flush=True); time.sleep(60)"
    script = tmp_path / "w.py"
    script.write_text(code)
    argv = [sys.executable, str(script), "-m", "workers"]
    ours, other = (
        subprocess.Popen([*argv, str(tmp_path / name)], stdout=subprocess.PIPE) for name in ("run", "run2")
    )
    for child in (ours, other):
        assert child.stdout is not None
        child.stdout.readline()
    found = processes.survivors(str(tmp_path / "run"))
    assert found == [Identity(ours.pid, start_time(ours.pid))]
    assert exists(found[0])
    for child in (ours, other):
        child.kill()
        child.communicate()
    assert processes.survivors(str(tmp_path / "run")) == []


def test_a_directory_that_the_user_has_removed_has_no_stale_sockets(tmp_path: Path) -> None:
    processes.remove_stale_files(str(tmp_path / "removed"))

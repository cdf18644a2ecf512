"""Worker processes: started apart from us, watched whatever their parent, ended step by step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.channel import Channel
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Identity
from supervisor.base.proc import exists, start_time
from supervisor.fleet import processes
from supervisor.fleet.processes import DRAIN_S, KILL_S, Process, Processes
from tests.helpers.fakes import reraise, turn_until
from tests.helpers.guests.waiting import wait_for


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = Loop(reraise)
        self.ended: dict[Identity, tuple[bool, str]] = {}
        self._monkeypatch = monkeypatch
        self._channels: list[Channel] = []
        self.set_code("pass")

    def set_code(self, code: str) -> None:
        """What the next process does instead of being a worker."""
        self._monkeypatch.setattr(
            processes, "command", lambda *_: ([sys.executable, "-c", code], dict(os.environ))
        )
        self.processes = Processes(self.loop, "/nowhere", self._ended)

    def start(self) -> Process:
        process, channel = self.processes.start()
        self._channels.append(channel)
        return process

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.loop.close()

    def _ended(self, identity: Identity, clean: bool, how: str) -> None:
        self.ended[identity] = (clean, how)

    def wait(self, identity: Identity) -> tuple[bool, str]:
        turn_until(self.loop, lambda: identity in self.ended)
        assert self.processes.get(identity) is None
        return self.ended[identity]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    before = len(os.listdir("/proc/self/fd"))
    made = Bench(monkeypatch)
    yield made
    for identity in [each.identity for each in made.processes._processes.values()]:
        os.kill(identity.pid, signal.SIGKILL)
        made.wait(identity)
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("code", "clean", "how"),
    [
        ("pass", True, "it ended with 0"),
        ("import sys; sys.exit(3)", False, "it ended with 3"),
        ("import os; os.kill(os.getpid(), 9)", False, "it was ended by SIGKILL"),
    ],
)
def test_how_a_process_ended_is_told(bench: Bench, code: str, clean: bool, how: str) -> None:
    bench.set_code(code)
    identity = bench.start().identity
    assert bench.wait(identity) == (clean, how)
    assert not exists(identity)
    assert len(bench.processes) == 0


def test_a_process_has_a_session_of_its_own_and_nothing_of_ours(bench: Bench) -> None:
    bench.set_code("import time; time.sleep(60)")
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    identity = bench.start().identity
    assert os.getsid(identity.pid) == identity.pid
    proc = Path(f"/proc/{identity.pid}")
    turn_until(bench.loop, lambda: os.readlink(proc / "cwd") == "/")
    turn_until(bench.loop, lambda: "0" in os.listdir(proc / "fd") and len(os.listdir(proc / "fd")) <= 4)
    assert os.readlink(proc / "fd/0").startswith("socket:"), "its end of the channel"
    assert identity == Identity(identity.pid, start_time(identity.pid))
    os.close(leak)


def test_one_that_was_told_gets_time_then_a_signal_then_is_killed(bench: Bench) -> None:
    bench.set_code("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    process = bench.start()
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
    bench.set_code("import time; time.sleep(60)")
    identity = bench.start().identity
    bench.processes.end(identity, 0.0, notified=False)
    assert bench.wait(identity) == (False, "it was ended by SIGTERM")


def test_a_stopped_process_is_killed_all_the_same(bench: Bench) -> None:
    bench.set_code("import time; time.sleep(60)")
    identity = bench.start().identity
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


def test_a_failed_start_is_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "command", lambda *_: (["/nonexistent"], {}))
    with pytest.raises(LocalError, match="cannot start a worker: No such file"):
        Processes(bench.loop, "/nowhere", bench._ended).start()


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


def test_a_worker_of_this_tree_needs_nothing_around_it() -> None:
    argv, environment = processes.command("workers", "/run/x")
    assert argv[0] == sys.executable
    assert argv[-3:] == ["-m", "workers", "/run/x"]
    done = subprocess.run(
        [*argv[:-3], "-c", "import workers, forwarder; print('found')"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "found\n"

"""The template of workers: real processes that are forked, killed, stopped and refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from forwarder.channel import Channel
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.rendezvous import CHANNEL
from supervisor.base import child_process
from supervisor.base.proc import parent_of, state_of
from supervisor.pool import template
from supervisor.pool.processes import Processes
from supervisor.pool.template import ForkOwner, Template
from supervisor.pool.template_process import TemplateProcess
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fakes import reraise, turn_until
from tests.helpers.forking import forking
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import wait_for

SLEEP = "time.sleep(60)"
ORDINARY_USER = 12345


class Bench:
    """A template, and what its workers' owner is told."""

    def __init__(self, directory: Path) -> None:
        self.loop = Loop(reraise)
        self.processes = Processes(self.loop, str(directory), lambda *_: None)
        self.template = Template(self.loop, str(directory), self)
        self.workers: list[tuple[int, Channel]] = []
        self.failures: list[str] = []

    def forked(self, pid: int, channel: Channel) -> None:
        self.processes.take(pid)
        self.workers.append((pid, channel))

    def not_forked(self, how: str) -> None:
        self.failures.append(how)

    def template_ended(self) -> None:
        self.processes.end_unknown()

    def worker(self) -> int:
        """Ask for one more, and wait for it."""
        count = len(self.workers)
        self.template.fork()
        self.until(lambda: len(self.workers) > count)
        return self.workers[-1][0]

    def until(self, condition: object) -> None:
        turn_until(self.loop, condition, self.template.tick)  # type: ignore[arg-type]

    @property
    def pid(self) -> int:
        """Of the template that there is now."""
        assert self.template._process is not None
        return self.template._process.pid

    def close(self) -> None:
        self.template.close()
        self.processes.clear_away(list(self.processes))
        for _, channel in self.workers:
            channel.close()
        self.loop.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(child_process, "command", lambda _, path: forking(SLEEP, path))
    descriptors, children = open_descriptors(), children_of_ours()
    with short_directory() as directory:
        made = Bench(directory)
        yield made
        made.close()
    assert open_descriptors() == descriptors
    assert children_of_ours() == children, "none is left, dead or alive"


def children_of_ours() -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if parent_of(int(entry)) == os.getpid():
                    found.add(int(entry))
            except OSError:
                continue  # it has ended meanwhile
    return found


def test_a_worker_is_our_child_and_has_nothing_of_the_template(bench: Bench) -> None:
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    one, other = bench.worker(), bench.worker()
    os.close(leak)
    for pid in (one, other):
        proc = Path(f"/proc/{pid}")
        assert parent_of(pid) == os.getpid()
        wait_for(lambda pid=pid: os.getsid(pid) == pid, "a session of its own")
        assert os.readlink(proc / "cwd") == "/"
        wait_for(lambda proc=proc: set(os.listdir(proc / "fd")) == {"0", "1", "2"}, "no other descriptors")
        assert os.readlink(proc / "fd/1") == "/dev/null"
        assert (proc / "cmdline").read_bytes() == Path(f"/proc/{bench.pid}/cmdline").read_bytes()
        wait_for(lambda proc=proc: "template" not in (proc / "comm").read_text(), "a name of its own")
    ends = {os.readlink(f"/proc/{pid}/fd/0") for pid in (one, other, bench.pid)}
    assert len(ends) == 3, "each its own end of a channel"
    assert Path(f"/proc/{bench.pid}/comm").read_text().strip() == "worker-template"


def test_the_c_library_of_a_worker_knows_its_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lock of the kind that ZeroMQ has is owned by the number of a thread, which a fork changes."""
    said = tmp_path / "said"
    code = (
        "import ctypes, threading\n"
        "libc, place = ctypes.CDLL(None), ctypes.POINTER(ctypes.c_int)()\n"
        "assert libc.prctl(40, ctypes.byref(place), 0, 0, 0) == 0, 'PR_GET_TID_ADDRESS'\n"
        "numbers = place[0], threading.get_native_id(), os.getpid()\n"
        f"print(*numbers, file=open({str(said)!r}, 'w'), flush=True)\n" + SLEEP
    )
    monkeypatch.setattr(child_process, "command", lambda _, path: forking(code, path))
    pid = bench.worker()
    wait_for(lambda: said.exists() and said.read_text().endswith("\n"), "the worker to say it")
    assert said.read_text().split() == [str(pid)] * 3


def test_a_killed_template_harms_no_worker_and_another_takes_its_place(bench: Bench) -> None:
    worker, before = bench.worker(), bench.pid
    os.kill(before, signal.SIGKILL)
    bench.until(lambda: bench.template._process and bench.pid != before)
    assert state_of(worker) in "SR"
    assert state_of(bench.worker()) in "SR"
    assert not bench.failures


def test_what_is_asked_while_the_template_ends_is_asked_of_the_next(bench: Bench) -> None:
    """Its channel ends a moment before its process does."""
    bench.worker()
    ended = bench.pid
    bench.template._hang_up()
    bench.worker()
    assert bench.pid != ended
    assert bench.failures == []


def test_what_a_killed_template_had_not_answered_is_asked_of_the_next(bench: Bench) -> None:
    bench.worker()
    before = bench.pid
    os.kill(before, signal.SIGSTOP)
    wait_for(lambda: state_of(before) == "T", "it to stop")
    for _ in range(3):
        bench.template.fork()
    os.kill(before, signal.SIGKILL)
    bench.until(lambda: len(bench.workers) == 4)
    assert not bench.failures


def test_a_worker_of_which_its_template_could_not_tell_is_ended_and_reaped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The template is killed between its fork and its answer; the one after that is left alone."""
    once = tmp_path / "once"
    killed = (
        "send = Channel.send\n"
        "def kill(self, message, descriptors=()):\n"
        f"    path = {str(once)!r}\n"
        "    if os.path.exists(path):\n"
        "        open(path, 'w').write(str(message.pid))\n"
        "        os.rename(path, path + '.done')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    send(self, message, descriptors)\n"
        "Channel.send = kill\n"
    )
    monkeypatch.setattr(child_process, "command", lambda _, path: forking(SLEEP, path, killed))
    bench.worker()
    once.touch()
    before = bench.pid
    bench.template.fork()
    bench.until(lambda: len(bench.workers) == 2)
    assert bench.pid != before
    unknown = int(once.with_name("once.done").read_text())
    bench.until(lambda: unknown not in children_of_ours())
    assert {pid for pid, _ in bench.workers} < children_of_ours()
    assert not bench.failures


def test_the_sockets_of_an_unknown_worker_that_has_ended_are_removed(bench: Bench) -> None:
    """Its sockets outlive it, since a worker in its cell can remove nothing; those of a living one stay."""
    living = bench.worker()
    with subprocess.Popen(["true"]) as ended:
        pass
    files = [Path(bench.processes._runtime_dir, f"{pid}{CHANNEL}") for pid in (living, ended.pid)]
    for each in files:
        each.touch()
    bench.template_ended()
    assert [each.exists() for each in files] == [True, False]


def test_a_template_that_does_not_answer_is_ended_and_its_requests_fail(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, before = bench.worker(), bench.pid
    monkeypatch.setattr(template, "ANSWER_S", 0.2)
    os.kill(before, signal.SIGSTOP)
    bench.template.fork()
    bench.template.fork()
    bench.until(lambda: len(bench.failures) == 2)
    assert "template of the workers was ended by SIGKILL" in bench.failures[0]
    assert state_of(worker) in "SR"
    monkeypatch.undo()
    monkeypatch.setattr(child_process, "command", lambda _, path: forking(SLEEP, path))
    assert state_of(bench.worker()) in "SR", "the next request makes another"


def test_a_template_that_cannot_start_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        child_process, "command", lambda *_: ([sys.executable, "-c", "raise SystemExit(5)"], None)
    )
    bench.template.fork()
    bench.until(lambda: bench.failures)
    assert bench.failures == ["the template of the workers ended with 5"]
    monkeypatch.setattr(child_process, "command", lambda *_: (["/nonexistent"], {}))
    with pytest.raises(LocalError, match="cannot start a template of workers: No such file"):
        bench.template.fork()


def test_a_template_that_says_what_it_should_not_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = "import socket, time; s = socket.socket(fileno=0); s.recv(9); s.send(b'x'); time.sleep(60)"
    monkeypatch.setattr(child_process, "command", lambda *_: ([sys.executable, "-c", code], None))
    bench.template.fork()
    bench.until(lambda: bench.failures)
    assert "bad message" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root, for whom no limit holds, can become another user")
def test_a_fork_that_fails_is_said_and_the_next_may_succeed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = (
        "import resource\n"
        "limit = lambda soft: resource.setrlimit(resource.RLIMIT_NPROC, (soft, 10))\n"
        "signal.signal(signal.SIGUSR1, lambda *_: limit(10))\n"
        f"os.setresuid({ORDINARY_USER}, {ORDINARY_USER}, {ORDINARY_USER}); limit(0)\n"
    )
    monkeypatch.setattr(child_process, "command", lambda _, path: forking(SLEEP, path, limited))
    bench.template.fork()
    bench.until(lambda: bench.failures)
    assert bench.failures == [
        "cannot fork: Resource temporarily unavailable; raise the limit of processes (ulimit -u)"
    ]
    os.kill(bench.pid, signal.SIGUSR1)
    assert state_of(bench.worker()) in "SR"


def test_the_first_process_may_have_been_started_before(bench: Bench) -> None:
    with short_directory() as directory:
        first = TemplateProcess(str(directory))
        bench.template = Template(bench.loop, str(directory), bench, first)
        worker = bench.worker()
        assert state_of(worker) in "SR"
        assert bench.pid == first.pid
        os.kill(worker, signal.SIGKILL)
        bench.until(lambda: has_ended(worker))  # it makes files in the directory


def test_a_first_process_that_was_never_asked_ends_with_the_rest() -> None:
    with short_directory() as directory:
        first = TemplateProcess(str(directory))
        loop = Loop(reraise)
        Template(loop, str(directory), cast(ForkOwner, None), first).close()
        loop.close()
        assert has_ended(first.pid)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_template_ends_with_its_supervisor(stopped: bool) -> None:
    with short_directory() as directory:
        code = (
            "import sys; from forwarder.loop import Loop; from supervisor.pool.template import Template\n"
            "class Owner:\n"
            "    def forked(self, pid, channel): print(template._process.pid, pid, flush=True)\n"
            "loop = Loop(); template = Template(loop, sys.argv[1], Owner()); template.fork()\n"
            "while True: loop.turn(1)"
        )
        words = [sys.executable, "-c", code, str(directory)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as supervisor:
            assert supervisor.stdout is not None
            pid, worker = map(int, supervisor.stdout.readline().split())
            if stopped:
                os.kill(pid, signal.SIGSTOP)
                wait_for(lambda: state_of(pid) == "T", "it to stop")
            supervisor.kill()
        wait_for(lambda: has_ended(pid), "the template to end")
        wait_for(lambda: has_ended(worker), "the worker to end, which makes files in the directory")


def has_ended(pid: int) -> bool:
    try:
        return state_of(pid) == "Z"
    except OSError:
        return True

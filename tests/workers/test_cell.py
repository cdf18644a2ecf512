"""A worker's cell: each part takes away what it says, for every thread, and a missing part is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder import _core
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.ordinary import as_user

ROOT = Path(__file__).parents[2]
ORDINARY = 21_001
USERS = [None, ORDINARY] if os.geteuid() == 0 else [None]
ALL = ["user", "root", "privileges", "undumpable", "landlock", "limits", "seccomp"]

PROGRAM = """
import ctypes, fcntl, json, mmap, os, resource, signal, socket, sys, threading, time
from forwarder import _core
libc = ctypes.CDLL(None, use_errno=True)
parent, report = os.getppid(), os.dup(1)
os.set_inheritable(report, False)
datagrams = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
victim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
victim_path = sys.argv[1]
victim.bind(victim_path)
result = {}

def attempt(name, attack):
    try:
        attack()
        result[name] = "worked"
    except OSError as error:
        result[name] = error.errno
    except (RuntimeError, ValueError):
        result[name] = "refused"

def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def read_memory():
    here = ctypes.create_string_buffer(8)
    ours, theirs = Part(ctypes.addressof(here), 8), Part(ctypes.addressof(victim_word), 8)
    call(310, parent, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)

victim_word = ctypes.create_string_buffer(8)

def fcntl_setown():
    fcntl.fcntl(report, fcntl.F_SETOWN, parent)

def shared():
    mmap.mmap(-1, 4096)

def executable():
    mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_EXEC)

def private():
    mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

def much():
    mmap.mmap(-1, 2 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

def socket_by_name():
    datagrams[0].sendmsg([b"x"], [], 0, victim_path)

ready, go = threading.Event(), threading.Event()
def other_thread():
    ready.set()
    go.wait()
    attempt("other thread: open", lambda: os.open("/etc/passwd", os.O_RDONLY))
    attempt("other thread: socket", socket.socket)

started = time.perf_counter()
parts, abi = _core.cell_restrict("worker")
middle = time.perf_counter()
thread = threading.Thread(target=other_thread)
thread.start()
ready.wait()
before = time.perf_counter()
parts += _core.cell_filter("worker")
ended = time.perf_counter()
go.set()
thread.join()
attempt("open", lambda: os.open("/etc/passwd", os.O_RDONLY))
attempt("create", lambda: os.open("/tmp/made-in-a-cell", os.O_WRONLY | os.O_CREAT))
attempt("list", lambda: os.listdir("/"))
attempt("path", lambda: os.stat("/etc"))
attempt("socket", socket.socket)
attempt("kill", lambda: os.kill(parent, 0))
attempt("stop oneself", lambda: os.kill(os.getpid(), 0))
attempt("fork", os.fork)
attempt("thread", lambda: threading.Thread(target=time.time).start())
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("ptrace", lambda: call(101, 16, parent, 0, 0))
attempt("read memory", read_memory)
attempt("pidfd", lambda: os.pidfd_open(parent))
attempt("executable memory", executable)
attempt("memory without a limit", shared)
attempt("two gigabytes", much)
attempt("a page", private)
attempt("signals by the kernel", fcntl_setown)
attempt("a socket by its name", socket_by_name)
attempt("memfd", lambda: os.memfd_create("x"))
attempt("user namespace", lambda: call(272, 0x10000000))
attempt("change user", lambda: os.setuid(0))
attempt("raise a limit", lambda: resource.setrlimit(resource.RLIMIT_NPROC, (9, 9)))
attempt("filter", lambda: call(317, 1, 8, 0))
attempt("flags", lambda: fcntl.fcntl(report, fcntl.F_GETFL))
attempt("descriptor", lambda: os.close(os.dup(report)))
counted = _core.cell_refused()
milliseconds = (middle - started + ended - before) * 1000
os.write(report, json.dumps([parts, abi, result, counted, milliseconds]).encode())
"""


def run(place: Path, user: int | None, before: str = "") -> tuple[list[str], int, dict[str, object], int]:
    """Enter a cell in a process of its own, as that user, and try everything."""
    command = [sys.executable, "-c", before + PROGRAM, str(place / "victim")]
    done = subprocess.run(
        command if user is None else as_user(user, command),
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr.decode()
    parts, abi, result, counted, milliseconds = json.loads(done.stdout)
    print(f"entered in {milliseconds:.2f} ms")
    return parts, abi, result, counted[0]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which any user can make a socket."""
    with short_directory() as directory:
        directory.chmod(0o777)
        yield directory


EVEN_SO = {"a page", "flags", "descriptor"}
"""What a worker needs."""


def worked(result: dict[str, object]) -> set[str]:
    return {name for name, what in result.items() if what == "worked"}


def test_the_parts_have_names() -> None:
    assert list(_core.CELL_PARTS) == ALL


@pytest.mark.parametrize("user", USERS)
def test_only_the_needs_of_a_worker_work_in_a_cell(place: Path, user: int | None) -> None:
    parts, abi, result, counted = run(place, user)
    if parts != ALL:
        pytest.skip(f"the kernel has no {', '.join(each for each in ALL if each not in parts)}")
    assert worked(result) == EVEN_SO
    assert abi >= 1
    assert counted >= 15


DENY = """
import ctypes, struct
def deny(*numbers):  # as a sandbox around the switch would: these system calls are not there
    libc = ctypes.CDLL(None, use_errno=True)
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for number in numbers:
        code += [struct.pack("HBBI", 0x15, 0, 1, number), struct.pack("HBBI", 0x06, 0, 0, 0x50000 | 38)]
    code.append(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
    program = b"".join(code)
    buffer = ctypes.create_string_buffer(program, len(program))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    filled = Program(len(code), ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(filled), 0, 0) == 0
"""
x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls of x86-64")


@x86
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    ("numbers", "missing"),
    [((444, 445, 446), "landlock"), ((317,), "seccomp"), ((272, 161), "root")],
)
def test_a_part_that_is_not_to_be_had_is_missing_and_the_others_hold(
    place: Path, user: int | None, numbers: tuple[int, ...], missing: str
) -> None:
    if missing == "root" and user is None and os.geteuid() == 0:
        numbers = (161,)
    parts, abi, result, counted = run(place, user, f"{DENY}\ndeny{numbers}\n")
    assert missing not in parts
    assert parts == [part for part in ALL if part != missing]
    if missing == "landlock":
        assert abi == 0
        assert worked(result) == EVEN_SO
    elif missing == "seccomp":
        harm = {"open", "create", "list", "path", "kill", "exec", "ptrace", "read memory", "fork", "thread"}
        assert not worked(result) & harm
        assert counted == 0
    else:
        assert worked(result) - EVEN_SO <= {"path", "a socket by its name"}

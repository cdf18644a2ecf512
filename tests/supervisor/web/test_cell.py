"""What the page's process can do in its cell, and what it cannot: it tries."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.guests.switch import ROOT

TRIES = """
import ctypes, errno, json, os, signal, socket, subprocess, sys
from supervisor.web import cell
facts = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
entered = cell.enter(facts["runtime_dir"])
said = {"parts": entered.parts, "abi": entered.landlock_abi}

def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def attempt(name, attack):
    try:
        attack()
        said[name] = "worked"
    except OSError as error:
        said[name] = errno.errorcode[error.errno]

def tcp():
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", facts["port"]))

def bind():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))

def child(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise OSError(errno.EACCES, done.stderr)

attempt("read a secret", lambda: open(facts["secret"]).close())
attempt("list a home", lambda: os.listdir(facts["home"]))
attempt("write a file", lambda: open(facts["home"] + "/made", "w").close())
attempt("write in the runtime directory", lambda: open(facts["runtime_dir"] + "/made", "w").close())
attempt("delete a secret", lambda: os.unlink(facts["secret"]))
attempt("its child reads a secret", lambda: child("open(%r)" % facts["secret"]))
attempt("signal another process", lambda: os.kill(facts["victim"], 0))
attempt("trace another process", lambda: call(101, 16, facts["victim"], 0, 0))
attempt("the descriptors of another process", lambda: call(438, os.pidfd_open(facts["victim"]), 0, 0))
attempt("connect to the host", tcp)
attempt("bind a TCP port", bind)
attempt("a user namespace", lambda: call(272, 0x10000000))
attempt("io_uring", lambda: call(425, 1, 0))
attempt("start a program", lambda: child("import json, asyncio"))
attempt("read the runtime directory", lambda: open(facts["runtime_dir"] + "/lock").close())
attempt("the console", lambda: socket.socket(socket.AF_UNIX).connect(facts["console"]))
print(json.dumps(said))
"""
NEEDED = {"start a program", "read the runtime directory", "the console"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls of x86-64")
def test_the_page_keeps_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    home, runtime_dir = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    runtime_dir.mkdir()
    (home / "secret").write_text("secret")
    (runtime_dir / "lock").write_text("1")
    victim = subprocess.Popen(["sleep", "100"])
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as console:
        console.bind(str(runtime_dir / "console.sock"))
        console.listen()
        facts = {
            "home": str(home),
            "secret": str(home / "secret"),
            "runtime_dir": str(runtime_dir),
            "console": str(runtime_dir / "console.sock"),
            "victim": victim.pid,
            "port": server.getsockname()[1],
        }
        try:
            done = subprocess.run(
                [sys.executable, "-c", TRIES, json.dumps(facts)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
        finally:
            victim.kill()
            victim.wait()
    said = json.loads(done.stdout)
    missing = {"privileges", "undumpable", "landlock", "seccomp"} - set(said.pop("parts"))
    if missing or said.pop("abi") < 6:
        pytest.skip(f"the kernel has no {missing or 'scopes of Landlock'}")
    assert {name for name, what in said.items() if what == "worked"} == NEEDED
    assert len(said) == 16
    assert (home / "secret").exists()

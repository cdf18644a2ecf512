"""The switch as a user starts it: ``supervisor run`` as a process, its commands, and what it leaves behind.

Each switch lives in a directory of its own, with its runtime directory and its listeners' sockets, and
marks its environment, which its workers inherit. So its remains can be found by that mark and by that
directory's path, also without the process tree.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.helpers.guests.fake_vm import FakeVM, connect
from tests.helpers.guests.vhost_vm import GuestVM
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.listening import tcp_port

ROOT = Path(__file__).resolve().parents[3]
MARK = "BULKHEAD_TEST_SWITCH"
START_TIMEOUT = 30.0
Wrap = Callable[[list[str]], list[str]]


class Switch:
    """One switch under test. ``start`` it once; ``stop`` it, or ``kill`` what is left."""

    def __init__(self, directory: Path, *, wrap: Wrap = list) -> None:
        """Everything of it will be in ``directory``; ``wrap`` makes its commands others, around them."""
        self.directory = directory
        self._wrap = wrap
        self.runtime_dir = directory / "run"
        self.vm_dir = directory / "vm"
        self.vm_dir.mkdir()
        self.log_path = directory / "log"
        self.ready_line = ""
        self.process: subprocess.Popen[str] | None = None
        self._mark = uuid.uuid4().hex

    # Listeners: where each kind listens, if ``start`` is told to.

    @property
    def qemu(self) -> Path:
        """Path of the ``--listen-qemu`` socket."""
        return self.directory / "qemu.sock"

    @property
    def bess(self) -> Path:
        """Path of the ``--listen-bess`` socket."""
        return self.directory / "bess.sock"

    @property
    def network(self) -> Path:
        """Path of the ``--listen`` socket."""
        return self.directory / "network.sock"

    @property
    def vhost(self) -> Path:
        """Path of the ``--listen-vhost`` socket."""
        return self.directory / "vhost.sock"

    def vfkit(self, number: int = 1) -> Path:
        """Path of a ``--listen-vfkit`` socket; each takes one VM."""
        return self.directory / f"vfkit-{number}.sock"

    def tcp_port(self) -> int:
        """Return the port that the kernel chose for the ``tcp://`` listener."""
        assert self.process is not None
        port = tcp_port(self.process.pid)
        if port is None:
            raise RuntimeError("the switch listens on no TCP port")
        return port

    def connect(self, kind: str, name: str = "vm", number: int = 1, *, handshake: bool = False) -> FakeVM:
        """Connect a fake VM; ``kind`` is its URL's scheme (``fake_vm``).

        ``name`` is what a datagram VM binds in ``vm_dir``, ``number`` which vfkit socket it uses.
        """
        if kind == "vhost":
            return GuestVM(self.vhost)
        urls = {
            "unix": lambda: f"unix://{self.qemu}",
            "tcp": lambda: f"tcp://127.0.0.1:{self.tcp_port()}",
            "connect": lambda: f"connect://{self.network}",
            "unixpacket": lambda: f"unixpacket://{self.bess}",
            "unixgram": lambda: f"unixgram://{self.vfkit(number)}",
        }
        return connect(urls[kind](), local=self.vm_dir / name, handshake=handshake)

    def arguments(
        self,
        *,
        qemu: bool = False,
        bess: bool = False,
        vfkit: int = 0,
        tcp: bool = False,
        network: bool = False,
        vhost: bool = False,
        taps: Iterable[str] = (),
    ) -> list[str]:
        """Return the flags for the listeners asked for."""
        words = []
        if qemu:
            words += ["--listen-qemu", f"unix://{self.qemu}"]
        if tcp:
            words += ["--listen-qemu", "tcp://127.0.0.1:0"]
        if bess:
            words += ["--listen-bess", f"unixpacket://{self.bess}"]
        for number in range(1, vfkit + 1):
            words += ["--listen-vfkit", f"unixgram://{self.vfkit(number)}"]
        if network:
            words += ["--listen", f"unix://{self.network}"]
        if vhost:
            words += ["--listen-vhost", f"unix://{self.vhost}"]
        for tap in taps:
            words += ["--tap", tap]
        return words

    def start(self, *arguments: str) -> Switch:
        """Start ``supervisor run`` with more arguments, and wait until it says that it is ready."""
        self.launch(*arguments)
        return self.wait_ready()

    def launch(self, *arguments: str) -> None:
        """Start ``supervisor run`` with more arguments."""
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                self._command("run", *arguments),
                cwd=ROOT,
                env={**os.environ, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def wait_ready(self) -> Switch:
        """Wait until the supervisor says that it is ready."""
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT)
        self.ready_line = self.process.stdout.readline() if ready else ""
        if not self.ready_line.startswith("ready"):
            self.kill()
            raise RuntimeError(
                f"the switch did not get ready, it said {self.ready_line!r}; its log:\n{self.log()}"
            )
        return self

    def command(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an operator's command on this switch."""
        done = subprocess.run(
            self._command(name, *arguments),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(
                f"supervisor {name} ended with {done.returncode}: {done.stderr}{done.stdout}\n{self.log()}"
            )
        return done

    def json(self, name: str, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it says."""
        return json.loads(self.command(name, *arguments, "--json").stdout)

    def ports(self) -> list[dict[str, Any]]:
        """Return the ports as ``stats --json`` has them."""
        ports: list[dict[str, Any]] = self.json("stats")["ports"]
        return ports

    def wait_live(self, count: int, timeout: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait until exactly ``count`` ports are there and all of them are live; return them."""
        ports: list[dict[str, Any]] = []

        def live() -> bool:
            nonlocal ports
            ports = self.ports()
            return len(ports) == count and all(port["state"] == "live" for port in ports)

        def seen() -> str:
            states = [(port["name"], port["state"]) for port in ports]
            return f"{count} live ports, there are {states}; the switch's log:\n{self.log()}"

        wait_for(live, seen, timeout)
        return ports

    def log(self) -> str:
        """Return what the switch and its workers wrote on stderr so far."""
        return self.log_path.read_text()

    def stop(self, timeout: float = PATIENCE) -> None:
        """End the switch by ``supervisor stop``; raises unless it ends with 0 and leaves nothing behind."""
        assert self.process is not None
        self.command("stop")
        code = self.process.wait(timeout)
        if code:
            raise RuntimeError(f"the switch ended with {code}; its log:\n{self.log()}")
        self.assert_nothing_left()

    def assert_nothing_left(self, timeout: float = PATIENCE) -> None:
        """Raise TimeoutError unless this switch's processes, sockets and files go within ``timeout`` s."""
        wait_for(lambda: not self.remains(), lambda: f"these to go: {self.remains()}", timeout)

    def remains(self) -> list[str]:
        """Return what there still is of this switch, in words."""
        found = [f"process {pid}" for pid in self.processes()]
        for line in Path("/proc/net/unix").read_text().splitlines():
            path = "".join(line.partition("/")[1:])
            if path.startswith(f"{self.directory}/") and not path.startswith(f"{self.vm_dir}/"):
                found.append(f"socket {path}")
        found += [f"file {path}" for path in self.runtime_dir.rglob("*")]
        found += [f"file {path}" for path in self.directory.glob("*.sock")]
        return found

    def processes(self) -> list[int]:
        """Return the pids of the supervisor and all its workers that run now."""
        mark, where = f"{MARK}={self._mark}".encode(), os.fsencode(self.runtime_dir)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    # The environment of a worker in its cell cannot be read.
                    if {b"workers", where} <= set(words) or mark in (entry / "environ").read_bytes().split(
                        b"\0"
                    ):
                        found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """End the remains of this switch, for a test that failed."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process, self.process = self.process, None
        if process is not None:
            process.communicate()

    def _command(self, name: str, *arguments: str) -> list[str]:
        return self._wrap(
            [
                sys.executable,
                "-m",
                "bulkhead",
                name,
                "--runtime-dir",
                str(self.runtime_dir),
                *arguments,
            ]
        )

"""Other people's switches as contenders: Debian's ``vde_switch``, and a ``gvproxy`` binary that is named.

Both are one process for all VMs, which is the point of comparing. They are started with their defaults, with
room for as many VMs as asked for; their VMs' sockets get the same buffers as everybody's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.contenders import RECEIVE_BUFFER, SEND_BUFFER, Contender
from scripts.benchmarks.journal import MissingError
from tests.guests.fake_vm import MessageVM, StreamVM
from tests.guests.waiting import wait_for

START_PATIENCE = 10.0


class Peer(Contender):
    """A switch that is one process with sockets in a directory of its own."""

    process: subprocess.Popen[bytes]
    directory: Path

    def forwarders(self) -> list[int]:
        """Return the one process's pid."""
        return [self.process.pid]

    def _spawn(self, words: Sequence[str | Path], ready: Path) -> None:
        """Start the program and wait until a socket of its is there."""
        log = self.directory / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=out)
        self.stack.callback(self._end)

        def started() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended: {log.read_text().strip().splitlines()[-1:]}")
            return ready.exists()

        wait_for(started, f"{self.name} to listen", START_PATIENCE)

    def _make_directory(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="bh-"))
        self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def _end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        self.process.kill()
        self.process.communicate()

    def _connect(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stack.callback(sock.close)
        sock.settimeout(START_PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.connect(os.fspath(path))
        return sock


class VdeSwitch(Peer):
    """VDE's switch. Each VM has a control connection and a pair of datagram sockets."""

    name = "vde_switch"
    _MAGIC, _VERSION, _NEW_PORT = 0xFEEDFACE, 3, 0
    _ADDRESS = struct.Struct("=H108s")  # struct sockaddr_un
    _REQUEST = struct.Struct("=III110s")

    def _start(self, count: int, largest: int) -> None:
        program = shutil.which("vde_switch")
        if program is None:
            raise MissingError("vde_switch is not installed: apt-get install vde2")
        if self.kind != "dgram":
            raise MissingError(f"vde_switch has no {self.kind} sockets, only datagrams")
        self._make_directory()
        control = self.directory / "switch"
        self._spawn(
            [program, "--sock", control, "--numports", str(count + 1), "--macaddr", "02:bb:ff:00:00:01"],
            control / "ctl",
        )
        for number in range(1, count + 1):
            self.vms.append(MessageVM(self._plug(control / "ctl", number)))
        self.announce()

    def _plug(self, control: Path, number: int) -> socket.socket:
        path = self.directory / f"vm{number}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stack.callback(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(os.fspath(path))
        ours = self._ADDRESS.pack(socket.AF_UNIX, os.fsencode(path))
        link = self._connect(control)
        link.sendall(self._REQUEST.pack(self._MAGIC, self._VERSION, self._NEW_PORT, ours))
        answer = link.recv(self._ADDRESS.size)
        if len(answer) < 3:
            raise RuntimeError("vde_switch refused a VM")
        sock.connect(answer[2:].partition(b"\0")[0])
        return sock


class Gvproxy(Peer):
    """gvproxy: its gateway and its switch in one. VMs beyond the first come through its API socket."""

    name = "gvproxy"
    binary: Path | None = None

    def _start(self, count: int, largest: int) -> None:
        if self.binary is None:
            raise MissingError("no binary named (--gvproxy PATH)")
        if not os.access(self.binary, os.X_OK):
            raise MissingError(f"{self.binary} is no program")
        if self.kind != "stream":
            raise MissingError(f"gvproxy takes one VM on {self.kind} sockets, more only on streams")
        self._make_directory()
        api = self.directory / "api"
        # A listener for QEMU makes all its links, the API's too, speak QEMU's framing; -1: no port for ssh.
        words = [
            "-listen",
            f"unix://{api}",
            "-listen-qemu",
            f"unix://{self.directory / 'qemu'}",
            "-ssh-port",
            "-1",
        ]
        self._spawn([self.binary, *words], api)
        for _ in range(count):
            link = self._connect(api)
            link.sendall(b"POST /connect HTTP/1.1\r\nHost: gvproxy\r\nContent-Length: 0\r\n\r\n")
            self.vms.append(StreamVM(link))
        self.announce()

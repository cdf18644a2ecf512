"""Other projects' switches as contenders: Debian's ``vde_switch``, and a given ``gvproxy`` binary.

Both are one process for all VMs, which is the point of comparing. They are started with their defaults, with
room for as many VMs as asked for; their VMs' sockets get the same buffers as all others.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.benchmarks.lab.sockets import RECEIVE_BUFFER, SEND_BUFFER, Contender
from scripts.benchmarks.report.journal import MissingError
from tests.helpers.guests.fake_vm import MessageVM, StreamVM, build_frame, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import wait_for

START_PATIENCE = 10.0
TRIES, TRY_PATIENCE = 3, 0.5


class Peer(Contender):
    """A switch that is one process with sockets in a directory of its own."""

    process: subprocess.Popen[bytes]
    directory: Path

    def forwarders(self) -> list[int]:
        """Return the one process's pid."""
        return [self.process.pid]

    def _spawn(self, words: Sequence[str | Path], ready: Path) -> None:
        self.process = spawn(self.stack, self.name, words, self.directory / "log", ready.exists)

    def _try(self, size: int) -> None:
        """Raise MissingError unless frames of that size get through: not every switch takes the largest.

        What a VM sends right behind its request to be plugged in may be lost, its announcement too.
        """
        frame = build_frame(mac(2), mac(1), size)
        for _ in range(TRIES):
            self.announce()
            self.vms[0].send(frame)
            try:
                self.vms[1].receive_matching(lambda seen: seen == frame, TRY_PATIENCE)
                return
            except TimeoutError:
                continue
        raise MissingError(f"{self.name} does not deliver frames of {size:,} bytes")

    def _connect(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stack.callback(sock.close)
        sock.settimeout(START_PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

        def connected() -> bool:
            try:
                sock.connect(os.fspath(path))
            except ConnectionRefusedError:  # its path is there a moment before it listens
                return False
            return True

        wait_for(connected, f"{self.name} to accept", START_PATIENCE)
        return sock


def spawn(
    stack: contextlib.ExitStack,
    name: str,
    words: Sequence[str | Path],
    log: Path,
    ready: Callable[[], bool],
) -> subprocess.Popen[bytes]:
    """Start a program, which ends with the stack, and wait until it is ready."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=out)
    stack.callback(_end, process)

    def started() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended: {log.read_text().strip().splitlines()[-1:]}")
        return ready()

    wait_for(started, f"{name} to be ready", START_PATIENCE)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)
    process.kill()
    process.communicate()


class VdeSwitch(Peer):
    """VDE's switch. Each VM has a control connection and a pair of datagram sockets."""

    name = "vde_switch"
    most_in_flight = 64
    _MAGIC, _VERSION, _NEW_PORT = 0xFEEDFACE, 3, 0
    _ADDRESS = struct.Struct("=H108s")  # struct sockaddr_un
    _REQUEST = struct.Struct("=III110s")

    def _start(self, count: int, largest: int) -> None:
        program = shutil.which("vde_switch")
        if program is None:
            raise MissingError("vde_switch is not installed: apt-get install vde2")
        if self.kind != "dgram":
            raise MissingError(f"vde_switch has no {self.kind} sockets, only datagrams")
        self.directory = self.stack.enter_context(short_directory())
        control = self.directory / "switch"
        self._spawn(
            [program, "--sock", control, "--numports", str(count + 1), "--macaddr", "02:bb:ff:00:00:01"],
            control / "ctl",
        )
        for number in range(1, count + 1):
            self.vms.append(MessageVM(self._plug(control / "ctl", number)))
        self._try(largest)

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
        self.directory = self.stack.enter_context(short_directory())
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
        self._try(largest)

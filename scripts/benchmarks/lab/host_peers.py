"""Other projects between a host and a VM: Debian's passt, pasta and slirp4netns, and gvproxy."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from scripts.benchmarks.lab import pumped
from scripts.benchmarks.lab.host_and_vm import (
    CABLE,
    FORWARDS,
    MAC,
    Gateway,
    HostAndVM,
    KrunkitGateway,
    SocketGateway,
)
from scripts.benchmarks.lab.lab import NEEDED
from scripts.benchmarks.lab.switches import spawn
from scripts.benchmarks.report.journal import MissingError
from tests.helpers.guests.waiting import PATIENCE

Ready = Callable[[], bool]


class Peer(HostAndVM):
    """One process of another project."""

    process: subprocess.Popen[bytes]

    def forwarders(self) -> list[int]:
        """Return the one process's pid."""
        return [self.process.pid]

    def _spawn(
        self, directory: Path, stack: contextlib.ExitStack, words: Sequence[str], ready: Ready
    ) -> None:
        self.process = spawn(stack, self.name, self._inside(words), directory / "log", ready)

    def _has_interface(self) -> bool:
        return "eth0:" in self.vm.run("ip -o link")


class Passt(Peer):
    """passt: made for one QEMU."""

    name = "passt"
    partner = SocketGateway.name
    needed: ClassVar = {**NEEDED, "passt": "passt"}
    address, router, alias = "10.98.0.2/24", "10.98.0.1", "10.98.0.1"
    program = "passt"

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        path = directory / "passt.sock"
        words = [self.program, "-1", "-s", str(path), *self._settings("")]
        self._spawn(directory, stack, words, path.exists)
        pumped.as_qemu(self.vm, MAC, self.mtu, path, stack)

    def _settings(self, where: str) -> list[str]:
        """Return the words that passt and pasta share; ``where``: the host's address, with a slash."""
        addresses = ("-4", "-a", self.guest, "-n", "24", "-g", self.router, "-i", "out")
        # As root: as user nobody it could not use our directory and namespace.
        pairs = [(kind, f"{port}:{inner}") for kind, port, inner in FORWARDS]
        forwards = [
            f"-{kind[0]}{where}{','.join(pair for each, pair in pairs if each == kind)}"
            for kind in ("tcp", "udp")
        ]
        return ["-f", "-q", "--runas", "0", "-m", str(self.mtu), *addresses, *forwards]


class Pasta(Passt):
    """pasta: passt for a network namespace, with a TAP of its own.

    It passes traffic from the host's loopback to the namespace's loopback, past the TAP: a shortcut for
    containers that VMs cannot have. So the host connects to another of its own addresses.
    """

    name = "pasta"
    partner = Gateway.name
    entrance = CABLE
    program = "pasta"

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        where = ("--netns-only", "--netns", str(self.vm.path), "-I", "eth0", "--config-net")
        words = [self.program, *self._settings(f"{CABLE}/"), "-T", "none", "-U", "none", *where]
        self._spawn(directory, stack, words, self._has_interface)


class Slirp(Peer):
    """slirp4netns, with libslirp's TCP/IP."""

    name = "slirp4netns"
    partner = Gateway.name
    needed: ClassVar = {**NEEDED, "slirp4netns": "slirp4netns"}
    address, router, alias = "10.0.2.100/24", "10.0.2.2", "10.0.2.2"

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        api = directory / "api"
        words = ["slirp4netns", "--configure", f"--mtu={self.mtu}", f"--api-socket={api}"]
        words += ["--netns-type=path", str(self.vm.path), "eth0"]
        self._spawn(directory, stack, words, lambda: api.exists() and self._has_interface())
        for kind, port, inner in FORWARDS:
            there = {"proto": kind, "host_addr": self.entrance, "host_port": port}
            there |= {"guest_addr": self.guest, "guest_port": inner}
            _ask(api, json.dumps({"execute": "add_hostfwd", "arguments": there}), '"return"')


class Gvproxy(Peer):
    """gvproxy, with gVisor's TCP/IP; its binary is an option."""

    name = "gvproxy"
    partner = SocketGateway.name
    address, router, alias = Gateway.address, Gateway.router, Gateway.alias
    binary: Path | None = None
    listen, scheme = "-listen-qemu", "unix"

    def _attach(self, vm: Path, stack: contextlib.ExitStack) -> None:
        pumped.as_qemu(self.vm, MAC, self.mtu, vm, stack)

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        if self.binary is None:
            raise MissingError("no binary named (--gvproxy PATH)")
        if not os.access(self.binary, os.X_OK):
            raise MissingError(f"{self.binary} is no program")
        vm, api = directory / "vm", directory / "api"
        words = [str(self.binary), self.listen, f"{self.scheme}://{vm}", "-services", f"unix://{api}"]
        words += ["-mtu", str(self.mtu), "-ssh-port", "-1"]  # -1: no port for ssh
        self._spawn(directory, stack, words, lambda: vm.exists() and api.exists())
        self._attach(vm, stack)
        for kind, port, inner in FORWARDS:
            there = {
                "local": f"{self.entrance}:{port}",
                "remote": f"{self.guest}:{inner}",
                "protocol": kind,
            }
            body = json.dumps(there)
            head = f"POST /services/forwarder/expose HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
            _ask(api, head + body, " 200 ")


class KrunkitGvproxy(Gvproxy):
    """The same; the VM is krunkit's, with offloading on: what pull request 613 measured."""

    name = "gvproxy, VM of krunkit, offloading"
    partner = KrunkitGateway.name
    listen, scheme = "-listen-vfkit", "unixgram"

    def _attach(self, vm: Path, stack: contextlib.ExitStack) -> None:
        pumped.as_krunkit(self.vm, MAC, self.mtu, vm, stack, offloads=KrunkitGateway.offloads)


def _ask(path: Path, question: str, wanted: str) -> None:
    """Send a question to a socket; raises RuntimeError unless ``wanted`` is in the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(os.fspath(path))
        sock.sendall(question.encode())
        sock.shutdown(socket.SHUT_WR)
        answer = sock.makefile().read()
    if wanted not in answer:
        raise RuntimeError(f"asked for a forward, it said {answer!r}")


PEERS: tuple[type[Peer], ...] = (Pasta, Slirp, Passt)
"""Those of Debian."""

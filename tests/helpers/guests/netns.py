"""A network namespace of the test's own, with a TAP in it that leads to the switch.

A TAP gets there in one of two ways. The switch makes it (``supervisor run --tap NAME,netns=…``), or the test
does (``open_tap``) and keeps its descriptor, to pump its frames through a VM socket: a TAP stays attached to
its descriptor when it is moved into a namespace, so it is made outside, never brought up there, and moved.

Names carry the process id, because namespaces are seen by the whole machine.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.helpers.guests.fake_vm import OffloadVM, PacketVM
from tests.helpers.guests.machine import CommandError, Machine
from tests.helpers.guests.waiting import PATIENCE

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETVNETLE = 0x400454DC
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
VIRTIO_HEADER = 12  # struct virtio_net_hdr_v1: with the number of buffers
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 0x0003
MAX_TAP_MTU = 65_521  # 65,535 less the Ethernet header: what the kernel allows a TAP
_numbers = itertools.count(1)
T = TypeVar("T")


class Namespace(Machine):
    """One network namespace; everything that was started in it ends with it."""

    def __init__(self, name: str, interface: str = "eth0") -> None:
        super().__init__(name, interface)
        self.netns = f"bh{os.getpid()}-{next(_numbers)}"
        self._running: list[subprocess.Popen[bytes]] = []
        self._taps: list[int] = []
        _ip("netns", "add", self.netns)
        self.run("ip link set lo up")

    @property
    def path(self) -> Path:
        """The file that stands for the namespace."""
        return Path("/run/netns") / self.netns

    def run(self, command: str, timeout: float = PATIENCE) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.netns, "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandError(self.name, command, done.returncode, done.stdout)
        return done.stdout

    def start(self, command: str) -> None:
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.netns, "sh", "-c", f"exec {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._running.append(process)

    def open_tap(self, mac: str, *, mtu: int = 1500, offloads: int | None = None) -> int:
        """Make this namespace's interface, a TAP, and return its descriptor, which this object closes.

        With ``offloads`` (TUN_F_*) its frames are behind a header of VIRTIO_HEADER bytes, and its kernel
        leaves these to the device.
        """
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._taps.append(tap)
        flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if offloads is not None else 0)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", self.netns.encode(), flags))
        if offloads is not None:
            fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", VIRTIO_HEADER))
            fcntl.ioctl(tap, TUNSETVNETLE, struct.pack("i", 1))
            fcntl.ioctl(tap, TUNSETOFFLOAD, offloads)
        self.adopt(self.netns)
        self.run(f"ip link set {self.interface} address {mac} mtu {mtu} up")
        return tap

    def adopt(self, device: str) -> None:
        """Move a device in here, as this namespace's interface."""
        _ip("link", "set", device, "netns", self.netns, "name", self.interface)

    def packet_vm(self) -> PacketVM:
        """Return a raw-frame VM at the kernel's side of the interface."""
        return PacketVM(self.inside(self._packet_socket))

    def offload_vm(self) -> OffloadVM:
        """Return one there that has the offloads of a network card."""
        return OffloadVM(self.inside(self._packet_socket))

    def inside(self, make: Callable[[], T]) -> T:
        """Call ``make`` in a thread that has entered the namespace: a socket stays where it was made."""
        result: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                with self.path.open() as file:
                    if libc.setns(file.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"cannot enter {self.path}")
                result.append(make())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def close(self) -> None:
        """End what was started here and remove the namespace with what is in it."""
        for process in self._running:
            process.kill()
            process.wait()
        for tap in self._taps:
            os.close(tap)
        _ip("netns", "del", self.netns)

    def _packet_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((self.interface, ETH_P_ALL))
        return sock


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")

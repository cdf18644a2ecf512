"""Many guests at once, each a network namespace with a TAP, without a program or a name for each.

A thread enters a namespace of its own and makes the TAP there; the namespace lives as long as the TAP's
descriptor. What the thread starts (``run``) is in that namespace. One pump, a thread of the test, carries the
frames of all of them between the TAPs and a stream socket of the switch, and may look at each of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
SIOCSIFFLAGS, SIOCSIFHWADDR = 0x8914, 0x8924
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
IFF_UP = 0x1
ARPHRD_ETHER = 1
NAME = b"eth0"
LENGTH = struct.Struct(">I")
WITHOUT_IPV6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
"""A kernel's own frames of IPv6 are flooded to all: with 250 guests this pump would have to carry hundreds of
thousands of them before an answer."""

Look = Callable[[int, bytes, bool], None]
"""Called with a guest's number, a frame, and whether the guest sent it."""


class Crowd:
    """So many guests on one listener."""

    def __init__(self, count: int, listener: Path, look: Look = lambda number, frame, sent: None) -> None:
        self.count = count
        self._look = look
        self._listener = listener
        self._stop = threading.Event()
        self._taps: list[int] = []
        self._links: list[socket.socket] = []
        self._threads: list[ThreadPoolExecutor] = []
        for number in range(count):
            inside = ThreadPoolExecutor(1)  # stays in its namespace
            self._threads.append(inside)
            self._taps.append(inside.submit(_make_guest, mac(number)).result())
        self._pump = threading.Thread(target=self._carry)

    def attach(self) -> None:
        """Connect all to the switch and begin to carry frames."""
        for _ in range(self.count):
            link = socket.socket(socket.AF_UNIX)
            link.connect(str(self._listener))
            self._links.append(link)
        self._pump.start()

    def run(self, *command: str) -> list[subprocess.CompletedProcess[str]]:
        """Run the same in every namespace at the same moment, and return how it ended in each."""
        gate = threading.Barrier(self.count)

        def one() -> subprocess.CompletedProcess[str]:
            gate.wait()
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)

        return [future.result() for future in [inside.submit(one) for inside in self._threads]]

    def close(self) -> None:
        """End all guests."""
        self._stop.set()
        if self._pump.is_alive():
            self._pump.join()
        for link in self._links:
            link.close()
        for inside in self._threads:
            inside.shutdown()
        for tap in self._taps:
            os.close(tap)

    def _carry(self) -> None:
        poller = select.epoll()
        for tap, link in zip(self._taps, self._links, strict=True):
            poller.register(tap, select.EPOLLIN)
            poller.register(link, select.EPOLLIN)
        taps = {tap: number for number, tap in enumerate(self._taps)}
        links = {link.fileno(): number for number, link in enumerate(self._links)}
        waiting = [b""] * self.count
        with contextlib.closing(poller):
            while not self._stop.is_set():
                for fd, _ in poller.poll(0.05):
                    if fd in taps:
                        self._send(taps[fd], _frames_of(fd))
                    else:
                        number = links[fd]
                        data = self._links[number].recv(1 << 16)
                        if not data:
                            poller.unregister(fd)
                            continue
                        waiting[number] = self._deliver(number, waiting[number] + data)

    def _send(self, number: int, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self._look(number, frame, True)
            self._links[number].sendall(LENGTH.pack(len(frame)) + frame)

    def _deliver(self, number: int, data: bytes) -> bytes:
        at = 0
        while len(data) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if len(data) - at - LENGTH.size < length:
                break
            frame = data[at + LENGTH.size : at + LENGTH.size + length]
            at += LENGTH.size + length
            self._look(number, frame, False)
            with contextlib.suppress(OSError):  # the interface is down, or takes no such frame
                os.write(self._taps[number], frame)
        return data[at:]


def mac(number: int) -> str:
    """Return the address of a guest."""
    return f"52:54:00:63:{number >> 8:02x}:{number & 255:02x}"


def _frames_of(tap: int) -> list[bytes]:
    frames: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while len(frames) < 64:
            frames.append(os.read(tap, 1 << 16))
    return frames


def _make_guest(address: str) -> int:
    """Enter a new namespace and make its interface; return the TAP's descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    WITHOUT_IPV6.write_text("1")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TAP | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        hardware = bytes.fromhex(address.replace(":", ""))
        fcntl.ioctl(control, SIOCSIFHWADDR, struct.pack("16sH6s8x", NAME, ARPHRD_ETHER, hardware))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", NAME, IFF_UP))
    return tap

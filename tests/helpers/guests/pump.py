"""Carries frames between a TAP and a VM socket of the switch, as a process of its own.

This makes the kernel's own TCP/IP a VM of any transport: the namespace behind the TAP sends and receives, the
switch sees a stream, a seqpacket or a datagram VM. ``Pump`` starts the process; run as a program this file is
it.

The loop is one thread that takes turns in both directions, up to ``BURST`` frames each. It sends blockingly:
the switch always reads from its VMs, and a pump that had to wait would be a VM that is slow, no more.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from tests.helpers.guests.fake_vm import LARGEST_READ, FakeVM, LinkClosed, connect

BURST = 64
ROOT = Path(__file__).resolve().parents[3]
CONNECTED = "connected\n"


class Pump:
    """A running pump. ``header``: bytes in front of each frame at the TAP, which the socket does not see.

    That is what libkrun does with the ``virtio_net_hdr`` of its guest's frames: it cuts it off, and puts as
    many zeros in front of what comes.
    """

    def __init__(self, tap: int, url: str, local: Path | None = None, *, header: int = 0) -> None:
        words = [str(tap), url, str(header), *([str(local)] if local is not None else [])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.guests.pump", *words],
            cwd=ROOT,
            pass_fds=[tap],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != CONNECTED:
            self.close()
            raise ConnectionError(f"the pump to {url} did not connect")

    def close(self) -> None:
        """End the pump, as a VM dies. One that has ended is left alone."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


def pump(tap: int, vm: FakeVM, header: int) -> None:
    """Carry frames both ways until the link is closed."""
    zeros = bytes(header)
    poller = select.poll()
    poller.register(tap, select.POLLIN)
    poller.register(vm.sock, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == tap:
                vm.send(*(frame[header:] for frame in _burst(tap)), timeout=60.0)
            else:
                for frame in vm.drain():
                    _write(tap, zeros + frame)


def _burst(tap: int) -> list[bytes]:
    frames: list[bytes] = []
    while len(frames) < BURST:
        try:
            frames.append(os.read(tap, LARGEST_READ))
        except BlockingIOError:
            break
    return frames


def _write(tap: int, frame: bytes) -> None:
    try:
        os.write(tap, frame)
    except OSError:
        return  # the interface is down or takes no such frame: a lost frame, as on any wire


def main() -> None:
    """Run as a program: DESCRIPTOR URL HEADER-BYTES [LOCAL-PATH]."""
    tap, url, header, *local = sys.argv[1:]
    with connect(url, local=Path(local[0]) if local else None) as vm:
        print(CONNECTED, end="", flush=True)
        try:
            pump(int(tap), vm, int(header))
        except LinkClosed:
            return


if __name__ == "__main__":
    main()

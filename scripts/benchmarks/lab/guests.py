"""Guests that share their memory (vhost-user), beside VMs on sockets that write one frame a call.

A load generator that writes 256 KiB in one call is faster than any real VM on a socket: QEMU writes a frame
at a time. So the ways by sockets do that here, too.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess

from scripts.benchmarks.lab.sockets import Bulkhead, Contender, Relay
from scripts.benchmarks.report.journal import MissingError
from tests.helpers.guests.fake_vm import FakeVM
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.vhost_vm import GuestVM
from tests.helpers.guests.waiting import wait_for

VHOST = "vhost"
"""The kind of such guests, where other VMs have a kind of socket."""
ONE_WRITE = "stream-1"


class OneWriteRelay(Relay):
    """A process that only copies, between VMs that write one frame a call."""

    wire = ONE_WRITE

    def start(self, kind: str, count: int, largest: int) -> list[FakeVM]:
        """Start it on stream sockets."""
        return super().start("stream", count, largest)


class OneWriteBulkhead(Bulkhead):
    """The switch, with VMs on stream sockets that write one frame a call."""

    name = "bulkhead, sockets"
    wire = ONE_WRITE

    def start(self, kind: str, count: int, largest: int) -> list[FakeVM]:
        """Start it on stream sockets."""
        return super().start("stream", count, largest)


class GuestBulkhead(Bulkhead):
    """The switch, with guests whose memory it reads and writes."""

    name = "bulkhead"

    def plug(self, number: int) -> FakeVM:
        """Connect one more guest."""
        vm = self.switch.connect(VHOST)
        self.stack.callback(vm.close)
        self.vms.append(vm)
        return vm


class Testpmd(Contender):
    """DPDK's lib/vhost, by its own test program: one core that polls and copies from guest to guest."""

    name = "dpdk-testpmd"
    _pid = 0

    def _start(self, count: int, largest: int) -> None:
        assert count == 2
        program = shutil.which("dpdk-testpmd")
        if program is None:
            raise MissingError("no dpdk-testpmd: install dpdk-dev")
        directory = self.stack.enter_context(short_directory())
        paths = [directory / f"{number}.sock" for number in range(2)]
        devices = [f"--vdev=net_vhost{number},iface={path},tso=1" for number, path in enumerate(paths)]
        process = subprocess.Popen(
            [
                program,
                *("--no-huge", "-m", "512", "--no-pci", "--no-telemetry", f"--file-prefix={directory.name}"),
                *("-l", "0-1", *devices, "--", "--forward-mode=io", "--total-num-mbufs=16384"),
                *("--nb-cores=1", "--auto-start", "--no-mlockall"),
            ],
            stdin=subprocess.PIPE,  # it would end with its standard input
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.stack.callback(process.communicate)
        self.stack.callback(process.kill)
        self._pid = process.pid
        wait_for(lambda: all(path.exists() for path in paths), "dpdk-testpmd to listen")
        self.vms = [GuestVM(path) for path in paths]
        for vm in self.vms:
            self.stack.enter_context(contextlib.closing(vm))

    def forwarders(self) -> list[int]:
        """Return its pid."""
        return [self._pid]


WAYS: tuple[type[Contender], ...] = (OneWriteRelay, OneWriteBulkhead, GuestBulkhead, Testpmd)

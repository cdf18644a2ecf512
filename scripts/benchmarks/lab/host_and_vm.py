"""Labs of a host and a VM: our gateway between them, or one process of another project (``host_peers``).

Both are network namespaces of the lab's own: no packet can leave them, and every port is free. The host has a
cable to nowhere, because passt and pasta need a default route. The VM is the kernel's TCP/IP behind a TAP, of
which there are two kinds. A contender that accepts a TAP gets it. For a contender that accepts only sockets,
load/pump.c copies the frames, which costs CPU time. So our gateway is measured both ways, and each other
contender is compared with the same kind of VM.

The VM reaches the host's loopback by an address that the contender has for it; the host reaches the VM
through a forwarded port. All are started with what they recommend for this, and with the MTU.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from scripts.benchmarks.lab import pumped
from scripts.benchmarks.lab.lab import BEFORE, Lab, Test, dropped_before
from scripts.benchmarks.lab.sockets import end_of
from tests.helpers.gateway.processes import process
from tests.helpers.guests.krunkit import COMPAT
from tests.helpers.guests.machine import IPERF_PORT
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask

HOST, VM = "host", "VM"
TO_VM, TO_HOST = f"{HOST} to {VM}", f"{VM} to {HOST}"
MAC = "5a:94:ef:e4:0c:ee"
FORWARDED = IPERF_PORT + 1
LOAD_PORT, LOAD_FORWARDED = 9100, 9200
"""Port of load/inet.c at either end, and the host's port that leads to the VM's; the next ports, too."""
FORWARDS = (
    ("tcp", FORWARDED, IPERF_PORT),
    *((kind, LOAD_FORWARDED + each, LOAD_PORT + each) for kind in ("tcp", "udp") for each in (0, 1)),
)
"""Forwards to the VM: kind, the host's port, the VM's."""
CABLE, NOBODY = "198.51.100.1", "198.51.100.254"
"""The host's address that is not loopback, and the address of its router, which does not exist (RFC 5737)."""


def plan(streams: int) -> tuple[Test, ...]:
    """Return the tests of pull request 613, the one of many streams last."""
    return (
        Test(HOST, "", (TO_VM,), 1),
        Test(VM, "", (TO_HOST,), 1),
        Test(VM, "--bidir", (TO_HOST, TO_VM), 1),
        Test(VM, f"-P {streams} -Z --bidir", (TO_HOST, TO_VM), streams),
    )


class HostAndVM(Lab):
    """A host and one VM on it."""

    address: str
    """The VM's, with the length of its network's prefix."""
    router: str
    alias: str
    """The VM's address for the host's loopback."""
    entrance = "127.0.0.1"
    """The host's address of the forwarded port."""
    host: Namespace
    vm: Namespace

    def _build(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.host, self.vm = (stack.enter_context(contextlib.closing(Namespace(name))) for name in (HOST, VM))
        self.host.run("ip link add out type veth peer name far; ip link set far up; ip link set out up")
        self.host.run(f"ip addr add {CABLE}/24 dev out; ip route add default via {NOBODY}")
        self._join(directory, stack)
        self.vm.run(f"ip addr replace {self.address} dev eth0; ip link set eth0 mtu {self.mtu} up")
        self.vm.run(f"ip route replace default via {self.router}")
        for room in self.rooms:
            room.serve_iperf()
        for end in (HOST, VM):
            room, words = self.client(end)
            wait_for(partial(_connects, room, words), f"{self.name} to connect {end} and its peer")

    @property
    def rooms(self) -> tuple[Namespace, Namespace]:
        """The host and the VM."""
        return self.host, self.vm

    @property
    def guest(self) -> str:
        """The VM's address."""
        return self.address.partition("/")[0]

    @abstractmethod
    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        """Start the contender; the VM has its interface then."""

    def client(self, end: str) -> tuple[Namespace, str]:
        """Return the namespace of this end, and iperf3's words for the other end's server."""
        if end == HOST:
            return self.host, f"{self.entrance} -p {FORWARDED}"
        return self.vm, self.alias

    def drops(self) -> Counter[str]:
        """Return the frames dropped so far, by reason."""
        return Counter({BEFORE: dropped_before(self.vm)})

    def _inside(self, words: Sequence[str]) -> list[str]:
        """Return a command that runs ``words`` on the host."""
        return ["ip", "netns", "exec", self.host.netns, *words]


def _connects(room: Namespace, words: str) -> bool:
    return "receiver" in room.run(f"timeout 2 iperf3 -c {words} -n 1K || true")


class Gateway(HostAndVM):
    """Our switch with its gateway; the VM is a TAP port."""

    name = "bulkhead --gateway"
    partner = name
    address, router, alias = "192.168.127.2/24", "192.168.127.1", "192.168.127.254"

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._start(directory, stack, taps=[f"eth0,netns={self.vm.netns}"])
        self.vm.run(f"ip link set eth0 address {MAC}")
        self._switch.wait_live(2)

    def _start(self, directory: Path, stack: contextlib.ExitStack, **listeners: object) -> None:
        self._switch = Switch(directory, wrap=self._inside)
        stack.push(end_of(self._switch))
        forwards = [
            f"--forward={kind}:{self.entrance}:{port}:{self.guest}:{inner}" for kind, port, inner in FORWARDS
        ]
        flags = ("--gateway", "--mtu", str(self.mtu), *forwards)
        self._switch.start(*flags, *self._switch.arguments(**listeners))  # type: ignore[arg-type]

    def forwarders(self) -> list[int]:
        """Return the pids of both ports' workers, and of the gateway's host side."""
        return [*(port["worker"]["pid"] for port in self._switch.ports()), self._process("gateway")]

    def drops(self) -> Counter[str]:
        """Return these, those of the gateway's own TAP, and what the switch counts."""
        drops = super().drops()
        inside = Path(f"/proc/{self._process('gateway.inside')}/net/dev").read_text()
        drops[BEFORE] += int(inside.partition("lan0:")[2].split()[11])
        for port in self._switch.ports():
            drops.update(port["drops"])
        return drops

    def _process(self, module: str) -> int:
        """Return the pid of the gateway's process, or of the one in its namespace."""
        pid = process(self._switch, module)
        if not pid:
            raise RuntimeError(f"the switch has no process {module}")
        return pid


class SocketGateway(Gateway):
    """The same; the VM comes by a socket, as QEMU does."""

    name = "bulkhead --gateway, VM by socket"
    partner = name

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._start(directory, stack, qemu=True)
        pumped.as_qemu(self.vm, MAC, self.mtu, self._switch.qemu, stack)
        self._switch.wait_live(2)


class KrunkitGateway(Gateway):
    """The same; the VM is krunkit's, with offloading on, as podman starts it and pull request 613 had it."""

    name = "bulkhead --gateway, VM of krunkit, offloading"
    partner = name
    offload, offloads = "tso", COMPAT

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._start(directory, stack)
        path = directory / "krunkit.sock"
        settings = {"offload": self.offload, "mtu": self.mtu}
        ask(self._switch, "attach", transport="vfkit", url=f"unixgram://{path}", settings=settings)
        pumped.as_krunkit(self.vm, MAC, self.mtu, path, stack, offloads=self.offloads)
        self._switch.wait_live(2)


class PlainKrunkitGateway(KrunkitGateway):
    """The same with offloading off."""

    name = "bulkhead --gateway, VM of krunkit"
    partner = KrunkitGateway.name
    offload, offloads = "none", 0


OURS: tuple[type[Gateway], ...] = (Gateway, SocketGateway, KrunkitGateway, PlainKrunkitGateway)

"""Labs of two VMs: a TAP in each namespace, and a switch between them, ours or another project's.

Our TAPs have the offloads of a network card; those of ``vde_switch`` have none. VMs of krunkit are imitated:
the frames of a TAP are pumped to a socket of the switch as libkrun does it.
"""

from __future__ import annotations

import contextlib
import shutil
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import ClassVar, NamedTuple

from scripts.benchmarks.lab import pumped
from scripts.benchmarks.lab.lab import BEFORE, Lab, Test, dropped_before
from scripts.benchmarks.lab.sockets import Bulkhead, end_of
from scripts.benchmarks.lab.switches import VdeSwitch, spawn
from scripts.benchmarks.report.journal import MissingError
from tests.helpers.guests.krunkit import COMPAT
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.watching import ask

LEFT, RIGHT = "left", "right"
THERE, BACK = f"{LEFT} to {RIGHT}", f"{RIGHT} to {LEFT}"
ADDRESSES = {LEFT: "10.99.0.1", RIGHT: "10.99.0.2"}
GUEST_MAC = "5a:94:ef:e4:0d:01"
PING_OVERHEAD = 28  # bytes of IPv4 and ICMP headers
PING_PATIENCE = 3.0


def plan(streams: int) -> tuple[Test, ...]:
    """Return the tests of pull request 613, the one of many streams last."""
    return (
        Test(LEFT, "", (THERE,), 1),
        Test(LEFT, "-R", (BACK,), 1),
        Test(LEFT, "--bidir", (THERE, BACK), 1),
        Test(LEFT, f"-P {streams} -Z --bidir", (THERE, BACK), streams),
    )


class TwoVMs(Lab):
    """Namespaces left and right."""

    partner = Bulkhead.name
    left: Namespace
    right: Namespace

    def _build(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.left, self.right = (
            stack.enter_context(contextlib.closing(Namespace(name))) for name in (LEFT, RIGHT)
        )
        self._join(directory, stack)
        for side in self.rooms:
            side.address(f"{ADDRESSES[side.name]}/24", mtu=self.mtu)
        self.left.ping(ADDRESSES[RIGHT])
        try:
            self.left.ping(ADDRESSES[RIGHT], size=self.mtu - PING_OVERHEAD, timeout=PING_PATIENCE)
        except TimeoutError:
            raise MissingError(f"{self.name} does not deliver packets of {self.mtu:,} bytes") from None
        self.right.serve_iperf()

    @abstractmethod
    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        """Start the switch, with a TAP in each namespace."""

    @property
    def rooms(self) -> tuple[Namespace, Namespace]:
        """Left and right."""
        return self.left, self.right

    def client(self, end: str) -> tuple[Namespace, str]:
        """Return the namespace of this end, and iperf3's words for the other end's server."""
        assert end == LEFT
        return self.left, ADDRESSES[RIGHT]

    def drops(self) -> Counter[str]:
        """Return the frames dropped so far, by reason."""
        return Counter({BEFORE: sum(dropped_before(side) for side in self.rooms)})


class BulkheadLab(TwoVMs):
    """Our switch, which makes the TAPs in the namespaces."""

    name = Bulkhead.name

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._switch = Switch(directory)
        stack.push(end_of(self._switch))
        taps = [f"{side.interface},netns={side.netns}" for side in self.rooms]
        self._switch.start(*self._switch.arguments(taps=taps))
        self._switch.wait_live(2)

    def forwarders(self) -> list[int]:
        """Return the pids of both TAPs' workers."""
        return [port["worker"]["pid"] for port in self._switch.ports()]

    def drops(self) -> Counter[str]:
        """Return these and what the switch counts."""
        drops = super().drops()
        for port in self._switch.ports():
            drops.update(port["drops"])
        return drops


class VdeLab(TwoVMs):
    """VDE's switch with both TAPs in its one process, which is the best it can do.

    It makes the TAPs in its own namespace; they stay attached to it when they are moved.
    """

    name = VdeSwitch.name

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        program = shutil.which("vde_switch")
        if program is None:
            raise MissingError("vde_switch is not installed: apt-get install vde2")
        sides = self.rooms
        there = [Path("/sys/class/net") / side.netns for side in sides]
        words: list[str | Path] = [program, "--sock", directory / "switch"]
        for side in sides:
            words += ["--tap", side.netns]
        self._process = spawn(
            stack, self.name, words, directory / "log", lambda: all(path.exists() for path in there)
        )
        for side in sides:
            side.adopt(side.netns)

    def forwarders(self) -> list[int]:
        """Return the one process's pid."""
        return [self._process.pid]


class End(NamedTuple):
    """A VM of krunkit: the offloads of its network device (TUN_F_*), and the settings of its port."""

    offloads: int
    settings: dict[str, object]


OFFLOADING = End(COMPAT, {"offload": "tso"})
LARGE = End(COMPAT, {"offload": "tso", "receive": "large"})
PLAIN = End(0, {})


class KrunkitLab(BulkheadLab):
    """Our switch; the VMs are krunkit's, with offloading on."""

    name = "bulkhead, VMs of krunkit, offloading"
    partner = name
    ends: ClassVar[tuple[End, End | None]] = (OFFLOADING, OFFLOADING)
    """Left and right; ``None`` is a TAP."""

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._switch = Switch(directory)
        stack.push(end_of(self._switch))
        sides = list(zip(self.rooms, self.ends, strict=True))
        taps = [f"{side.interface},netns={side.netns}" for side, end in sides if end is None]
        self._switch.start(*self._switch.arguments(qemu=True, taps=taps))
        for number, (side, end) in enumerate(sides, 1):
            if end is None:
                continue
            path = directory / side.name
            settings = {"mtu": self.mtu, **end.settings}
            ask(self._switch, "attach", transport="vfkit", url=f"unixgram://{path}", settings=settings)
            mac = f"5a:94:ef:e4:0d:{number:02x}"
            pumped.as_krunkit(side, mac, self.mtu, path, stack, offloads=end.offloads)
        self._switch.wait_live(2)


class LargeKrunkitLab(KrunkitLab):
    """The same; they are sent large frames, too."""

    name = "bulkhead, VMs of krunkit, offloading and large"
    ends = (LARGE, LARGE)


class PlainKrunkitLab(KrunkitLab):
    """The same with offloading off."""

    name = "bulkhead, VMs of krunkit"
    ends = (PLAIN, PLAIN)


class MixedKrunkitLab(KrunkitLab):
    """One with offloading on, the other one with offloading off."""

    name = "bulkhead, VMs of krunkit, one offloading"
    ends = (OFFLOADING, PLAIN)


class KrunkitTapLab(KrunkitLab):
    """One of them and a TAP."""

    name = "bulkhead, a VM of krunkit, offloading, and a TAP"
    partner = name
    ends = (OFFLOADING, None)


class PlainKrunkitTapLab(KrunkitTapLab):
    """The same with offloading off."""

    name = "bulkhead, a VM of krunkit and a TAP"
    ends = (PLAIN, None)


class GuestLab(BulkheadLab):
    """Our switch between a guest that shares its memory and a TAP."""

    name = "bulkhead, a guest's memory and a TAP"

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._switch = Switch(directory)
        stack.push(end_of(self._switch))
        tap = f"{self.right.interface},netns={self.right.netns}"
        self._switch.start(*self._switch.arguments(vhost=True, taps=[tap]))
        pumped.as_guest(self.left, GUEST_MAC, self.mtu, self._switch.vhost, stack)
        self._switch.wait_live(2)


LABS: tuple[type[TwoVMs], ...] = (
    BulkheadLab,
    GuestLab,
    VdeLab,
    KrunkitLab,
    LargeKrunkitLab,
    PlainKrunkitLab,
    MixedKrunkitLab,
    KrunkitTapLab,
    PlainKrunkitTapLab,
)

"""Two network namespaces and a switch between their TAPs: ours, or one process of somebody else.

A ``Lab`` is a context. Both ends have an address, the ping between them passes, and an iperf3 server runs on
the right one. The TAPs have no offloads: what a kernel sends is a frame, and forwarded as such.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from scripts.benchmarks.contenders import Bulkhead, end_of
from scripts.benchmarks.journal import MissingError
from scripts.benchmarks.peers import VdeSwitch, spawn
from tests.guests.netns import Namespace
from tests.guests.switch import Switch

NEEDED = {"ip": "iproute2", "iperf3": "iperf3", "busybox": "busybox-static"}
LEFT, RIGHT = "10.99.0.1", "10.99.0.2"
BEFORE = "before"
"""Among the reasons of drops: the TAPs' queues, before the switch has read a frame."""
PING_OVERHEAD = 28  # bytes of IPv4 and ICMP headers
PING_PATIENCE = 3.0


class Lab(ABC):
    """Namespaces ``left`` and ``right``, and what is between them."""

    name: str
    left: Namespace
    right: Namespace

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()

    def __enter__(self: Any) -> Any:
        missing = [
            f"{program} (apt-get install {package})"
            for program, package in NEEDED.items()
            if not shutil.which(program)
        ]
        if missing:
            raise MissingError(f"there is no {', no '.join(missing)}")
        if os.geteuid() or not os.access("/dev/net/tun", os.W_OK):
            raise MissingError("network namespaces and TAPs need root and /dev/net/tun")
        with contextlib.ExitStack() as stack:
            directory = Path(tempfile.mkdtemp(prefix="bh-"))
            stack.callback(shutil.rmtree, directory)
            self.left, self.right = (
                stack.enter_context(contextlib.closing(Namespace(name))) for name in ("left", "right")
            )
            self._join(directory, stack)
            self.left.address(f"{LEFT}/24")
            self.right.address(f"{RIGHT}/24")
            self.left.ping(RIGHT)
            self.right.serve_iperf()
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    @abstractmethod
    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        """Start the switch, with a TAP in each namespace."""

    @abstractmethod
    def forwarders(self) -> list[int]:
        """Return the pids of the processes that forward."""

    def set_mtu(self, mtu: int) -> None:
        """Give both ends an MTU; raises MissingError if such packets do not get through."""
        for side in (self.left, self.right):
            side.run(f"ip link set {side.interface} mtu {mtu}")
        try:
            self.left.ping(RIGHT, size=mtu - PING_OVERHEAD, timeout=PING_PATIENCE)
        except TimeoutError:
            raise MissingError(f"{self.name} does not deliver packets of {mtu:,} bytes") from None

    def drops(self) -> Counter[str]:
        """Return the frames dropped so far, by reason."""
        drops = Counter[str]()
        for side in (self.left, self.right):
            drops[BEFORE] += int(side.run(f"cat /sys/class/net/{side.interface}/statistics/tx_dropped"))
        return drops


class BulkheadLab(Lab):
    """Our switch, which makes the TAPs in the namespaces."""

    name = Bulkhead.name

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._switch = Switch(directory)
        stack.push(end_of(self._switch))
        taps = [f"{side.interface},netns={side.netns}" for side in (self.left, self.right)]
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


class VdeLab(Lab):
    """VDE's switch with both TAPs in its one process, which is the best it can do.

    It makes the TAPs in its own namespace; they stay attached to it when they are moved.
    """

    name = VdeSwitch.name

    def _join(self, directory: Path, stack: contextlib.ExitStack) -> None:
        program = shutil.which("vde_switch")
        if program is None:
            raise MissingError("vde_switch is not installed: apt-get install vde2")
        sides = (self.left, self.right)
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


LABS: tuple[type[Lab], ...] = (BulkheadLab, VdeLab)

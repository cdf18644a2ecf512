"""Two network namespaces and a way between them, for iperf3: the base of ``two_vms`` and ``host_and_vm``.

A ``Lab`` is a context, for one MTU. Inside it both ends are there, what is between them forwards packets of
that size, and each end that has to be reached has an iperf3 server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

from scripts.benchmarks.report.journal import MissingError
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.netns import Namespace

NEEDED = {"ip": "iproute2", "iperf3": "iperf3", "busybox": "busybox-static"}
BEFORE = "before"
"""Among the reasons of drops: the TAPs' queues, before a contender has read the frame."""


class Test(NamedTuple):
    """One way to call iperf3."""

    client: str
    """The end at which it runs; the server is at the other one."""
    words: str
    directions: tuple[str, ...]
    """Each "FROM to TO"."""
    streams: int
    """In each direction."""

    @property
    def title(self) -> str:
        """How it is called in the table."""
        both = ", both ways" if len(self.directions) > 1 else ""
        return f"{self.streams} stream{'s' * (self.streams > 1)}{both}"

    def sent_by_client(self, direction: str) -> bool:
        """Whether what goes in this direction comes from the client."""
        return direction.startswith(f"{self.client} to ")


class Lab(ABC):
    """Two ends and what is between them."""

    name: str
    partner: str
    """The name of our lab to compare this one with; its own name if it is ours."""
    needed: ClassVar[dict[str, str]] = NEEDED

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.stack = contextlib.ExitStack()

    def __enter__(self: Any) -> Any:
        missing = [
            f"{program} (apt-get install {package})"
            for program, package in self.needed.items()
            if not shutil.which(program)
        ]
        if missing:
            raise MissingError(f"there is no {', no '.join(missing)}")
        if os.geteuid() or not os.access("/dev/net/tun", os.W_OK):
            raise MissingError("network namespaces and TAPs need root and /dev/net/tun")
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(short_directory())
            self._build(directory, stack)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    @abstractmethod
    def _build(self, directory: Path, stack: contextlib.ExitStack) -> None:
        """Make all of it; what has to be undone goes to the stack."""

    @property
    @abstractmethod
    def rooms(self) -> Sequence[Namespace]:
        """Both ends."""

    def wrong_sums(self) -> int:
        """Return the segments and datagrams whose checksum one of the ends has found wrong so far."""
        return sum(room.wrong_sums() for room in self.rooms)

    @abstractmethod
    def client(self, end: str) -> tuple[Namespace, str]:
        """Return the namespace of this end, and iperf3's words for the other end's server."""

    @abstractmethod
    def forwarders(self) -> Sequence[int]:
        """Return the pids of the processes that forward."""

    @abstractmethod
    def drops(self) -> Counter[str]:
        """Return the frames dropped so far, by reason."""


def dropped_before(room: Namespace) -> int:
    """Return the frames for which the queue of a namespace's TAP had no room so far."""
    return int(room.run(f"cat /sys/class/net/{room.interface}/statistics/tx_dropped"))

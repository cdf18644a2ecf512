"""The values from which answers for operators are made: read pages, weighed processes, the switch itself."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from forwarder.names import Identity


class Reading(NamedTuple):
    """The reading of one port's stats page."""

    born: int
    counters: Mapping[str, int]
    losses: Sequence[tuple[int, int, int, int]] = ()
    """(peer port, peer's born, frames lost towards it, flood frames lost from it)."""
    macs: Sequence[tuple[bytes, int, bool]] = ()
    """(address, seconds since seen, pinned)."""


class Usage(NamedTuple):
    """The cost of one process. ``pss_bytes`` is None if the kernel does not tell it."""

    cpu_percent: float
    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int | None
    threads: int
    fds: int | None
    """None: the kernel does not tell it to us."""
    ctx_switches: int


class Switch(NamedTuple):
    """The switch as a whole, for the head of every answer."""

    epoch: int
    sequence: int
    started: float
    identity: Identity
    cell: Mapping[str, object] = MappingProxyType({})
    """The cells of its workers."""
    others: tuple[tuple[str, Identity], ...] = ()
    """Processes beside the supervisor and the workers, by name."""

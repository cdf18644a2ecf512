"""Who was heard when: a worker's heartbeat comes from its forwarding loop, so a silent worker is a stuck one.

Silence is reported and shown, and it is taken back when the worker is heard again. Nobody is ended for
it: a worker that is stopped in a debugger, or starved by the machine, harms only its own VM, and ending
it would cost that VM its link. Evidence of another epoch than the watched one is about a past life and
counts for nothing. The tables hold one entry per port that has a worker. Pure: times are monotonic seconds
that the caller passes in, never decreasing, and that keeps the table sorted without sorting.
"""

from typing import NamedTuple

SILENT_HEARTBEATS = 3
"""Heartbeats that may be missing before a worker is called silent."""


class Heard(NamedTuple):
    """The last sign of life of a worker."""

    epoch: int
    at: float


class Liveness:
    """Last signs of life of all workers."""

    def __init__(self, heartbeat_s: float) -> None:
        self._limit = SILENT_HEARTBEATS * heartbeat_s
        self._fresh: dict[int, Heard] = {}
        """Ports heard within the limit, the one heard longest ago first."""
        self._silent: dict[int, Heard] = {}

    def every(self, heartbeat_s: float) -> None:
        """Heartbeats come at this interval from now on."""
        self._limit = SILENT_HEARTBEATS * heartbeat_s

    def watch(self, port: int, epoch: int, now: float) -> None:
        """Expect heartbeats of that worker from now on, and of no earlier one of the port."""
        self.forget(port)
        self._fresh[port] = Heard(epoch, now)

    def forget(self, port: int) -> None:
        """Expect nothing of the port any more."""
        self._fresh.pop(port, None)
        self._silent.pop(port, None)

    def heard(self, port: int, epoch: int, now: float) -> float | None:
        """Note a sign of life; return how long the worker was silent, if it had been called silent."""
        known = self._fresh.get(port) or self._silent.get(port)
        if known is None or known.epoch != epoch:
            return None
        was_silent = port in self._silent
        self.watch(port, epoch, now)
        return now - known.at if was_silent else None

    def is_silent(self, port: int) -> bool:
        """Whether the port's worker has been called silent and not been heard since."""
        return port in self._silent

    def tick(self, now: float) -> list[tuple[int, int]]:
        """Return (port, epoch) of the workers that have become silent."""
        late = []
        for port, known in self._fresh.items():
            if known.at + self._limit > now:
                break
            late.append((port, known.epoch))
        for port, _ in late:
            self._silent[port] = self._fresh.pop(port)
        return late

    def deadline(self) -> float:
        """When the next worker becomes silent if nothing is heard of it; infinity if none can."""
        for known in self._fresh.values():
            return known.at + self._limit
        return float("inf")

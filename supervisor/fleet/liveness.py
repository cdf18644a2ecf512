"""Decide when a worker is silent: its pulse comes from its forwarding loop, so a silent worker is stuck.

Silence is logged and shown, until the worker is heard again. A silent worker is not ended: if it is stopped
in a debugger, or starved by the machine, it harms only its own VM, and ending it would cost that VM its link.
A report with another epoch than the watched one is about a past worker and is ignored. The tables have one
entry for each port with a worker.

Pure: times are monotonic seconds from the caller. The caller checks for pulses before each ``tick`` only: a
worker that was heard an interval ago may be silent for two more. A ``tick`` that comes late means that the
supervisor did not run (the machine was suspended, a container paused). Then the workers may not have run,
either, and their time begins anew.
"""

from typing import NamedTuple

SILENT_PULSES = 3
"""Pulses that may be missing before a worker is called silent."""

LATE_PULSES = 1
"""Pulses after the deadline at which a ``tick`` is late: turns of the supervisor take milliseconds."""


class Heard(NamedTuple):
    """The last sign of life of a worker."""

    epoch: int
    at: float


class Liveness:
    """Last signs of life of all workers."""

    def __init__(self, pulse_s: float) -> None:
        self._pulse = pulse_s
        self._fresh: dict[int, Heard] = {}
        self._silent: dict[int, Heard] = {}
        self._due = float("inf")

    def every(self, pulse_s: float) -> None:
        """Pulses come at this interval from now on."""
        self._pulse = pulse_s

    def watch(self, port: int, epoch: int, now: float) -> None:
        """Expect pulses of this worker from now on, and of no earlier one of the port."""
        self.forget(port)
        self._fresh[port] = Heard(epoch, now)
        self._due = min(self._due, now + SILENT_PULSES * self._pulse)

    def forget(self, port: int) -> None:
        """Expect nothing of the port any more."""
        self._fresh.pop(port, None)
        self._silent.pop(port, None)

    def heard(self, port: int, epoch: int, at: float) -> float | None:
        """Note a sign of life; if the worker was called silent, return for how long it was."""
        known = self._fresh.get(port) or self._silent.get(port)
        if known is None or known.epoch != epoch or at <= known.at:
            return None
        was_silent = self._silent.pop(port, None) is not None
        self._fresh[port] = Heard(epoch, at)
        return at - known.at if was_silent else None

    def is_silent(self, port: int) -> bool:
        """Whether the port's worker was called silent and has not been heard since."""
        return port in self._silent

    def tick(self, now: float) -> list[tuple[int, int]]:
        """Return (port, epoch) of the workers that have become silent."""
        limit = SILENT_PULSES * self._pulse
        if now >= self._due + LATE_PULSES * self._pulse:
            self._fresh = {port: Heard(known.epoch, now) for port, known in self._fresh.items()}
        late = [(port, known.epoch) for port, known in self._fresh.items() if known.at + limit <= now]
        for port, _ in late:
            self._silent[port] = self._fresh.pop(port)
        self._due = min((known.at for known in self._fresh.values()), default=float("inf")) + limit
        if self._silent:
            self._due = min(self._due, now + self._pulse)
        return late

    def deadline(self) -> float:
        """When to check for pulses and call ``tick``; infinity if no worker is watched."""
        return self._due

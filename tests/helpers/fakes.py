"""Stand-ins for the supervisor's parts: the owner that listeners bring VMs to, and a loop that is turned by
hand."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import PortId, PortRecord
from supervisor.attach.addresses import PortOptions

PATIENCE = 60.0


class FakeOwner:
    """Takes the VMs that listeners bring, and says no if told to."""

    def __init__(self) -> None:
        self.arrived: list[tuple[PortRecord, int]] = []
        self.reports: list[tuple[PortId, str]] = []
        self.released: set[PortId] = set()
        self.refuse = ""

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        if self.refuse:
            raise LocalError(self.refuse)
        number = len(self.arrived) + 1
        record = PortRecord(
            number, number, number, settings.name or f"{transport}-{number}", transport, settings.policy
        )
        self.arrived.append((record, vm))
        return record

    def gone(self, port: PortId, reason: str) -> None:
        self.reports.append((port, reason))

    def current(self, port: PortId) -> PortRecord | None:
        found = [record for record, _ in self.arrived if record.id == port and port not in self.released]
        return found[0] if found else None

    def port_count(self) -> int:
        return len(self.arrived) - len(self.released)

    def close(self) -> None:
        for _, vm in self.arrived:
            os.close(vm)


def reraise() -> None:
    """Let the failure of a loop's callback be the failure of the test that turns it."""
    error = sys.exc_info()[1]
    assert error is not None
    raise error


def turn_until(loop: Loop, condition: Callable[[], object], *ticks: Callable[[float], object]) -> None:
    """Turn the loop, and tick what needs it, until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the loop did not get there")
        loop.turn(0.01)
        for tick in ticks:
            tick(time.monotonic())


def turn_a_while(loop: Loop, turns: int = 20) -> None:
    """Give the loop the time that anything it should not do would take."""
    for _ in range(turns):
        loop.turn(0.001)

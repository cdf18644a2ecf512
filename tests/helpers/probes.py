"""Look at a running switch from outside: whether frames pass, the cost, and the worker of each port."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, LinkClosed, build_frame, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for


def talk(one: FakeVM, other: FakeVM, number: int = 1) -> None:
    """Broadcast from one VM until the other has heard it."""
    frame = build_frame(BROADCAST, mac(number), 60)

    def heard() -> bool:
        one.send(frame)
        return frame in other.drain()

    wait_for(heard, f"a broadcast of {mac(number).hex(':')} to arrive")


def closed(vm: FakeVM) -> bool:
    """Whether the switch has closed the link by now."""
    try:
        vm.drain()
    except LinkClosed:
        return True
    return False


def cpu_seconds(switch: Switch) -> float:
    """CPU time that the switch and its workers have used so far."""
    total = 0
    for pid in switch.processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def quiet(switch: Switch) -> bool:
    """Whether the switch uses no CPU time for a moment."""
    before = cpu_seconds(switch)
    time.sleep(0.1)
    return cpu_seconds(switch) == before


def worker_pids(switch: Switch) -> dict[str, int]:
    return {port["name"]: port["worker"]["pid"] for port in switch.json("status")["ports"]}


def kill_supervisor(switch: Switch) -> None:
    assert switch.process is not None
    switch.process.kill()
    switch.process.wait()

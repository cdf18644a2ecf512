"""What VM D does in a case of ``isolation`` while A sends to C."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.benchmarks.isolation_table import (
    FLOOD,
    HOSTILE,
    LONG,
    OFFLOAD,
    READS,
    SOUND,
    STORM,
    STORM_OFF,
    STUCK,
)
from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.sockets import Bulkhead, Contender
from tests.helpers.core.model_segments import HEADER, Flow
from tests.helpers.guests.fake_vm import BROADCAST, mac

# The VMs by number: A sends to C; the sender of a row's second case, and of its third; B, which may be
# several; the rest are idle.
A, C, B = 1, 2, 5
SENDER = {READS: 3, STUCK: 4, STORM: 3, STORM_OFF: 4, LONG: 3}
RUSH_BYTES = 3 << 20
"""D begins with so much for each B: more than a ring and a socket's buffer hold, so that a B that does not
read is full before the measurement."""
SETTLE = 0.3
"""Seconds that the rush may take."""
ADDRESSES = 12
SEGMENTS, MSS = 44, 1460
LARGE = 54 + SEGMENTS * MSS
"""Bytes of a frame that is to be cut into so many segments of 1,514 bytes."""
LARGE_RATE = 250
"""Such frames a second, 11,000 segments."""
LONG_BYTES, LONG_RATE = 9014, 1000
"""Bytes of a frame beyond the MTU of the VM that it is for, and such frames a second."""


class Setting(NamedTuple):
    """A row of the table, as it is to be measured."""

    row: str
    kind: str
    way: type[Contender]
    vms: int
    stuck: int


@contextlib.contextmanager
def disturbed(
    way: Contender, case: str, setting: Setting, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Have D send meanwhile, and B read or not; what they did is filled in afterwards."""
    done: dict[str, Any] = {}
    if case in (SOUND, HOSTILE) and isinstance(way, Bulkhead):
        with _queues_rewritten(way, case, options) as done:
            yield done
        return
    if case not in SENDER:
        yield done
        return
    with contextlib.ExitStack() as stack:
        for number in range(B, B + setting.stuck) if case == READS else ():
            vm = way.vms[number - 1]
            stack.enter_context(
                generator.running("sink", (way.kind, vm.sock.fileno(), vm_mac(0), 0, 0), [vm])
            )
        sender = way.vms[SENDER[case] - 1]
        to, count, size, rate = vm_mac(B), setting.stuck, options.size, options.stuck_rate
        headers: tuple[str, ...] = ()
        if setting.row == OFFLOAD:
            size, rate, headers = LARGE, LARGE_RATE, (unfinished_headers(),)
        rush = setting.stuck * RUSH_BYTES // size
        if case == LONG:
            to, size, rate, rush = vm_mac(C), LONG_BYTES, LONG_RATE, 0
        if setting.row == FLOOD:
            to, count, rush, rate = BROADCAST.hex(":"), 1, 0, 0
        words = (way.kind, size, rate, sender.sock.fileno(), vm_mac(SENDER[case]), to, count, rush, *headers)
        flood = stack.enter_context(generator.running("flood", words, [sender]))
        begun = time.monotonic()
        time.sleep(SETTLE)
        yield done
        done.update(generator.stop(flood))
        done["sent"] = max(0, done["sent"] - rush)
        done["seconds"] = time.monotonic() - begun


@contextlib.contextmanager
def _queues_rewritten(way: Bulkhead, case: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Have a guest offer frames meanwhile, and rewrite its queues or not."""
    done: dict[str, Any] = {}
    words = (way.switch.vhost, options.stuck_rate, int(case == SOUND))
    with generator.running("hostile", words, []) as guest:
        begun = time.monotonic()
        time.sleep(SETTLE)
        yield done
        done.update(generator.stop(guest))
        done["seconds"] = time.monotonic() - begun


def unfinished_headers() -> str:
    """Return what comes after the addresses of a frame that is to be cut, in hexadecimal digits."""
    flow = Flow(bytes(SEGMENTS * MSS), MSS)
    return flow.unfinished()[HEADER + ADDRESSES : -len(flow.payload)].hex()


def vm_mac(number: int) -> str:
    """Return a VM's address as the load generator takes it."""
    return mac(number).hex(":")

"""Measure many VMs on one switch: how soon they hear each other, the cost of a broadcast, pairs that work."""

from __future__ import annotations

import contextlib
import selectors
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.sockets import Bulkhead
from scripts.benchmarks.report import proc
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, mac
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask

AGAIN = 0.005
"""A broadcast before any port can be reached is lost: it is sent again after so many seconds."""
PATIENCE = 30.0
BETWEEN_BROADCASTS = 0.002
"""At least; a quarter of the rate at which a port's broadcasts are limited."""
HEARD_PATIENCE = 1.0


class Audience:
    """VMs that wait for frames, all at once."""

    def __init__(self, vms: Sequence[FakeVM]) -> None:
        self._vms = vms
        self._selector = selectors.DefaultSelector()
        for vm in vms:
            self._selector.register(vm.sock, selectors.EVENT_READ, vm)

    def __enter__(self) -> Audience:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def heard(self, frame: bytes, deadline: float) -> Iterator[FakeVM]:
        """Yield each VM when it first gets this frame, until all have or the deadline is over."""
        missing = set(self._vms)
        while missing and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                vm: FakeVM = key.data
                if frame in vm.drain() and vm in missing:
                    missing.remove(vm)
                    yield vm


def join(way: Bulkhead, number: int) -> float:
    """Attach one more VM; returns the seconds from its connect until all others have heard it. It leaves."""
    others = list(way.vms)
    for vm in others:
        vm.drain()
    # Must differ from the frame of a VM that joined before.
    frame = build_frame(BROADCAST, mac(number), seed=time.monotonic_ns())
    with Audience(others) as audience:
        begun = time.monotonic()
        newcomer = way.plug(number)
        missing = set(others)
        while missing:
            newcomer.send(frame)
            missing -= set(audience.heard(frame, time.monotonic() + AGAIN))
            if time.monotonic() > begun + PATIENCE:
                raise RuntimeError(f"{len(missing)} of {len(others)} VMs have not heard a new one")
        took = time.monotonic() - begun
    way.vms.remove(newcomer)
    newcomer.close()
    wait_for(lambda: len(ask(way.switch)["ports"]) == len(others), "the new VM's port to go")
    return took


def broadcasts(way: Bulkhead, count: int, idle_cpu: float) -> dict[str, Any]:
    """Have the first VM broadcast, one frame after the other, and see what that costs all workers together.

    ``idle_cpu`` is what they need anyway, in seconds a second.
    """
    pids = [port["worker"]["pid"] for port in ask(way.switch)["ports"]]
    receivers, took, heard = way.vms[1:], [], 0
    with Audience(receivers) as audience:
        before, began = proc.cpu_ns(pids), time.monotonic()
        for number in range(count):
            frame = build_frame(BROADCAST, mac(1), seed=number)
            sent = last = time.monotonic()
            way.vms[0].send(frame)
            for _ in audience.heard(frame, sent + HEARD_PATIENCE):
                heard += 1
                last = time.monotonic()
            took.append(last - sent)
            time.sleep(max(0.0, sent + BETWEEN_BROADCASTS - time.monotonic()))
        passed = time.monotonic() - began
        cpu = (proc.cpu_ns(pids) - before) * 1e-9 - idle_cpu * passed
    return {
        "broadcasts": count,
        "wanted": count * len(receivers),
        "heard": heard,
        "cpu_per_receiver": cpu / heard if heard else None,
        "last_heard": statistics.median(took),
    }


@contextlib.contextmanager
def working(way: Bulkhead, pairs: int, size: int, rate: int) -> Iterator[dict[str, Any]]:
    """Have pairs of VMs, all but the first two, work meanwhile; what they did is filled in after."""
    done: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        floods = []
        for number in range(3, 3 + 2 * pairs, 2):
            one, other = way.vms[number - 1], way.vms[number]
            source, target = mac(number).hex(":"), mac(number + 1).hex(":")
            stack.enter_context(
                generator.running("sink", (way.kind, other.sock.fileno(), source, 1, 0), [other])
            )
            words = (way.kind, size, rate, one.sock.fileno(), source, target, 1, 0)
            floods.append(stack.enter_context(generator.running("flood", words, [one])))
        began = time.monotonic()
        yield done
        done["sent"] = sum(generator.stop(flood)["sent"] for flood in floods)
        done["seconds"] = time.monotonic() - began

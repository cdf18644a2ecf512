"""What a VM that misbehaves costs its own worker, and so the machine: next to nothing."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from tests.helpers.core.engine_thread import at_work
from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac
from tests.helpers.guests.waiting import PATIENCE, wait_for

REFUSED_PER_S = 20_000
BURST_S = 0.1
ONE_READ = (1 << 18) // 64  # frames of 60 bytes


@pytest.mark.parametrize("kind", KINDS)
def test_a_vm_that_sends_forbidden_frames_is_read_later(kind: str) -> None:
    """The VM loses no allowed frame, and its frames keep their order."""
    with MiniSwitch() as switch, contextlib.ExitStack() as stack:
        vm, other = switch.add(1, kind), switch.add(2, "stream")
        for src, dst in ((1, 2), (2, 1), (1, 2)):
            switch.vms[src].send(frame(BROADCAST, mac(src)), frame(mac(dst), mac(src)))
            switch.settle()
        other.received()
        switch.engines[1].set_limits(broadcast=1, multicast=0, unknown=0, bytes=0, macs=0)
        engines = [switch.engines.pop(1), switch.engines.pop(2)]
        vm.sock.settimeout(PATIENCE)
        wanted = [frame(mac(2), mac(1), number.to_bytes(4, "big")) for number in range(200)]
        started = time.monotonic()
        for engine in engines:
            stack.enter_context(at_work(engine))
        for each in wanted:
            vm.send(*[frame(BROADCAST, mac(1))] * 63, each)
        got: list[bytes] = []

        def all_there() -> bool:
            got.extend(each for each in other.received() if each[:6] != BROADCAST)
            return len(got) >= len(wanted)

        wait_for(all_there, "all that it may send")
        elapsed = time.monotonic() - started
        assert got == wanted
        stack.close()
        switch.engines.update(enumerate(engines, 1))
        assert len(wanted) * 63 <= REFUSED_PER_S * (elapsed + BURST_S) + ONE_READ


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_whose_vm_does_not_read_is_not_woken_by_floods(kind: str) -> None:
    with MiniSwitch() as switch:
        stuck, sender = switch.add(1, kind, buffer=4608), switch.add(2, "stream")
        for port in (1, 2):
            switch.vms[port].send(frame(BROADCAST, mac(port)))
            switch.settle()
        while not switch.counters(1)["eagain"]:
            sender.send(frame(mac(1), mac(2), size=1514))
            switch.settle()
        stuck_engine = switch.engines.pop(1)
        with at_work(stuck_engine):
            before = switch.counters(1)["turns"]
            for _ in range(2000):
                sender.send(frame(BROADCAST, mac(2)))
                switch.turn()
                os.eventfd_write(switch.flood_bell, 1)  # rung for another worker
            assert switch.counters(1)["turns"] - before < 20
            wait_for(lambda: frame(BROADCAST, mac(2)) in stuck.received(), "the floods to come")
            wait_for(
                lambda: not stuck.received() and not switch.counters(1)["egress_bytes"], "all to be read"
            )
            sender.send(last := frame(BROADCAST, mac(2), b"last"))
            wait_for(lambda: switch.turn() and last in stuck.received(), "the flood bell to be heard again")
            sender.send(alone := frame(mac(1), mac(2), b"alone"))
            wait_for(lambda: switch.turn() and alone in stuck.received(), "the doorbell to be heard again")
        switch.engines[1] = stuck_engine

"""What an engine does unasked: it publishes while nothing happens, and it holds its flood bell if told to."""

from __future__ import annotations

import os
import threading

from forwarder import _core
from tests.helpers.core.bell_listener import BellListener
from tests.helpers.core.mini_switch import MiniSwitch, frame, mac
from tests.helpers.guests.waiting import wait_for


def test_an_idle_engine_publishes_once_an_interval_and_does_not_return_for_it() -> None:
    with MiniSwitch() as switch:
        switch.add(1, "stream")
        engine, page = switch.engines[1], _core.StatsPage(switch.stats[1])
        engine.pulse(0.02)
        stop = os.eventfd(0, os.EFD_NONBLOCK)
        engine.watch(stop)
        events: list[int] = []
        thread = threading.Thread(target=lambda: events.append(engine.run(60.0)))
        thread.start()
        try:
            for _ in range(3):
                last = page.published_at()
                wait_for(lambda last=last: page.published_at() > last, "a pulse")  # type: ignore[misc]
            assert not events
        finally:
            os.eventfd_write(stop, 1)
            thread.join()
            os.close(stop)
        assert events == [_core.EVENT_CONTROL]


def test_an_unpublished_stats_page_has_no_time() -> None:
    fd = _core.stats_page_create()
    assert _core.StatsPage(fd).published_at() == 0.0
    os.close(fd)


def test_no_worker_is_woken_for_a_reply() -> None:
    with MiniSwitch() as switch, BellListener(switch.flood_bell) as bell:
        vms = {port: switch.add(port, "stream") for port in (1, 2)}
        switch.settle()
        vms[2].send(frame(mac(2), mac(2)))  # only its own worker knows it
        switch.engines[2].run(0.0)
        vms[1].send(frame(mac(2), mac(1)))
        switch.engines[1].run(0.0)
        bell.rang()
        before = switch.counters(2)["doorbells"]
        wait_for(lambda: switch.engines[2].run(0.0) or vms[2].received(), "the flooded frame")
        assert not bell.rang()
        assert switch.counters(2)["doorbells"] == before

"""An engine in a thread of its own, as a worker runs it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from forwarder import _core
from tests.helpers.core.mini_switch import MiniSwitch
from tests.helpers.guests.waiting import wait_for


def _state(thread: threading.Thread) -> str:
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(") ")[2][0]


@contextlib.contextmanager
def at_work(engine: _core.Engine) -> Iterator[threading.Thread]:
    """Run an engine in a thread of its own."""
    control = os.eventfd(0, os.EFD_NONBLOCK)
    engine.watch(control)
    thread = threading.Thread(target=engine.run, args=(60.0,))
    thread.start()
    try:
        yield thread
    finally:
        os.eventfd_write(control, 1)
        thread.join()
        engine.unwatch(control)
        os.close(control)


@contextlib.contextmanager
def asleep(switch: MiniSwitch, port: int) -> Iterator[None]:
    """Run the engine of ``port`` in a thread, asleep when the body begins; the switch leaves it alone."""
    engine = switch.engines.pop(port)
    turns = switch.counters(port)["turns"]
    with at_work(engine) as thread:
        # It publishes before it sleeps, and in between it does not leave the processor of its own accord.
        wait_for(lambda: switch.counters(port)["turns"] > turns, "a turn")
        wait_for(lambda: _state(thread) == "S", "the engine to sleep")
        yield
    switch.engines[port] = engine

"""The watch over workers: what they report about themselves costs a bounded number of log lines."""

from __future__ import annotations

from typing import Any

import pytest

from forwarder.messages import Heartbeat
from forwarder.names import Policy, PortRecord
from supervisor.fleet.watch import HEARTBEATS, Watch

RECORD = PortRecord(3, 7, 5, "vm", "qemu", Policy())


class Sampler:
    """Has no pages."""

    def page(self, port: int) -> None:
        return None

    def published_at(self, port: int) -> float:
        return 0.0


def heartbeat(*, stalled: bool) -> Heartbeat:
    return Heartbeat(1, 1, 9, stalled, False, 0, -1)


@pytest.fixture
def watch() -> Watch:
    nothing: Any = None
    sampler: Any = Sampler()
    return Watch("/nowhere", nothing, nothing, sampler, lambda _: "vm", pulse_s=lambda: 1.0)


def test_a_worker_that_says_now_this_now_that_fills_no_log(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for number in range(10_000):
        watch.heartbeat(RECORD, heartbeat(stalled=number % 2 == 0))
    assert HEARTBEATS <= caplog.text.count("stalled") < 2 * HEARTBEATS


def test_the_next_worker_of_a_port_is_heard_at_once(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        watch.heartbeat(RECORD, heartbeat(stalled=False))
    watch.lost(RECORD.incarnation)
    watch.heartbeat(RECORD._replace(epoch=8), heartbeat(stalled=True))
    assert "stalled" in caplog.text

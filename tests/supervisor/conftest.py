"""Fixtures of several folders: a quiet log, and a bench of channels and rings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.base import logs
from supervisor.base.logs import log
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fleet_bench import FleetBench


@pytest.fixture
def quiet_log() -> Iterator[None]:
    """Set the log up without handlers; the test adds its own."""
    before = log.handlers[:], log.level, log.propagate
    logs.set_up("info", "text")
    log.handlers.clear()
    yield
    log.handlers[:], log.level, log.propagate = before


@pytest.fixture
def bench() -> Iterator[FleetBench]:
    """Return channels, rings and an fd store in a loop; no descriptor may be left at the end."""
    before = open_descriptors()
    made = FleetBench()
    yield made
    made.close()
    assert open_descriptors() == before, "descriptors leaked"

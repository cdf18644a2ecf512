"""A bench of the fleet's parts, for each test that asks for one."""

import os
from collections.abc import Iterator

import pytest

from tests.helpers.fleet_bench import FleetBench


@pytest.fixture
def bench() -> Iterator[FleetBench]:
    """Return channels, rings and an fd store in a loop; no descriptor may be left at the end."""
    before = len(os.listdir("/proc/self/fd"))
    made = FleetBench()
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors leaked"

"""A bench of the fleet's parts, for each test that asks for one."""

from collections.abc import Iterator

import pytest

from tests.helpers.descriptors import open_descriptors
from tests.helpers.fleet_bench import FleetBench


@pytest.fixture
def bench() -> Iterator[FleetBench]:
    """Return channels, rings and an fd store in a loop; no descriptor may be left at the end."""
    before = open_descriptors()
    made = FleetBench()
    yield made
    made.close()
    assert open_descriptors() == before, "descriptors leaked"

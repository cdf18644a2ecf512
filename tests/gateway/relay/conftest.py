"""A relay on loopback, for each test that asks for one."""

import contextlib

import pytest

from tests.helpers.gateway.policies import LOOPBACK
from tests.helpers.gateway.world import World


@pytest.fixture
def stack():
    """Close everything that a test has opened."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def world(stack):
    """Return a relay whose guests are addresses of loopback."""
    return stack.enter_context(contextlib.closing(World(LOOPBACK)))

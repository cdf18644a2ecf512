"""Two VMs that know each other, for the tests of operators' commands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.helpers.guests.fake_vm import FakeVM
from tests.helpers.guests.ports import attach, meet
from tests.helpers.guests.switch import Switch


@pytest.fixture
def pair(switch: Callable[..., Switch]) -> tuple[Switch, FakeVM, FakeVM]:
    """Return a switch, and the VMs web and db."""
    running = switch()
    web, db = attach(running, "web"), attach(running, "db")
    running.wait_live(2)
    meet({1: web, 2: db})
    return running, web, db

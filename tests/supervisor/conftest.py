"""A log that says nothing, for tests that listen to it themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.base import logs
from supervisor.base.logs import log


@pytest.fixture
def quiet_log() -> Iterator[None]:
    """Set the log up without handlers; the test adds its own."""
    before = log.handlers[:], log.level, log.propagate
    logs.set_up("info", "text")
    log.handlers.clear()
    yield
    log.handlers[:], log.level, log.propagate = before

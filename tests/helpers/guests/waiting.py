"""Waiting with a deadline: poll something observable, never sleep in the hope that it has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Long enough for two cores with ten times the work that they can do, short enough that a hang still fails.
PATIENCE = 60.0


def wait_for(
    condition: Callable[[], T | None], what: str | Callable[[], str], timeout: float = PATIENCE
) -> T:
    """Poll ``condition`` until it returns something true, and return that.

    Raises TimeoutError, which names ``what`` was waited for (a callable is asked only then, so that it can
    show the last state seen), after ``timeout`` seconds. The condition is always tried once more at the
    deadline.
    """
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        last_try = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if last_try:
            raise TimeoutError(f"waited {timeout:g} s for {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)

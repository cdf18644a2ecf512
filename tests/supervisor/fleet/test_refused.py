"""The start waits for workers that are refused as they claim, and not for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from forwarder._core import LAYOUT
from forwarder.messages import Claim
from forwarder.names import Cell, Identity, Policy, PortRecord
from supervisor.base.cells import CellPolicy
from supervisor.fleet import takeover
from supervisor.fleet.takeover import TakeOver

WORKER = Identity(4711, 99)


@pytest.fixture
def running() -> set[Identity]:
    return {WORKER}


@pytest.fixture
def refused(running: set[Identity]) -> TakeOver:
    """The window, in which a worker outside its cell has claimed."""
    processes = SimpleNamespace(get=lambda identity: identity if identity in running else None)
    pool = SimpleNamespace(processes=processes)
    nothing = cast(Any, None)
    made = TakeOver(nothing, nothing, cast(Any, pool), nothing, CellPolicy(required=True))
    made.left = {WORKER}
    claim = Claim(LAYOUT, Cell((), 0), PortRecord(1, 5, 5, "web", "tap", Policy()))
    assert made.adopt(claim, WORKER, (), 0.0) == (None, [])
    assert made.wait(0.0) == 0.0
    return made


def test_a_refused_worker_is_waited_for(refused: TakeOver, running: set[Identity]) -> None:
    turns: list[float] = []

    def turn(longest: float) -> None:
        turns.append(longest)
        if len(turns) == 3:
            running.clear()

    refused.await_end(turn)
    assert len(turns) == 3


def test_one_that_does_not_end_is_not_waited_for_for_ever(
    refused: TakeOver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(takeover, "GONE_S", 0.0)
    refused.await_end(lambda _: pytest.fail("no time is left"))
    assert "do not end" in caplog.text

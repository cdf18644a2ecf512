"""A command waits no longer for an answer than it is to."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.errors import LocalError
from supervisor.console import patience


class Silent:
    """A wait in which nothing comes; it has the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[int] = []

    def poll(self, timeout: int, /) -> list[object]:
        self.waits.append(timeout)
        self.now += timeout / 1000
        return []


@pytest.mark.parametrize(("longest_s", "waits"), [(10.0, [2500] * 4), (3.0, [2500, 500]), (0.5, [500])])
def test_a_command_waits_for_no_longer_than_it_is_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest_s: float, waits: list[int]
) -> None:
    silent = Silent()
    monkeypatch.setattr(patience.time, "monotonic", lambda: silent.now)
    with pytest.raises(LocalError, match=f"has not answered for {longest_s:.1f} s; see its log"):
        patience.wait(silent, str(tmp_path), longest_s)
    assert silent.waits == waits

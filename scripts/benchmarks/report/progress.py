"""The progress bar of a benchmark, on stderr and only where that is a terminal.

It is redrawn twice a second and not more often, since drawing it takes time of the cores that are measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

REDRAWS_PER_SECOND = 2.0


class _Timed(Progress):
    """A progress some of whose tasks go on by themselves, as time passes."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            if task.fields["timed"] and task.total is not None:
                task.completed = min(task.total, task.elapsed or 0.0)
        yield from super().get_renderables()


class Bar:
    """How many runs are done, and what is being done; nothing is shown before the first ``step``."""

    def __init__(self, name: str) -> None:
        self._progress = _Timed(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=REDRAWS_PER_SECOND,
            disable=not sys.stderr.isatty(),
        )
        self._name = name
        self._total: int | None = None
        self._done = 0
        self._task: TaskID | None = None

    def expect(self, runs: int) -> None:
        """Say how many runs there will be; unsaid, the bar only shows that something goes on."""
        self._total = runs

    def step(self, what: str) -> None:
        """Show what is done now."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=self._total, timed=False, unit="")
        self._progress.update(self._task, description=f"[{self._name}] {what}", unit=self._counted())

    def done(self) -> None:
        """Show that one more run is done."""
        self._done += 1
        if self._task is not None:
            self._progress.update(self._task, completed=self._done, unit=self._counted())

    @contextmanager
    def during(self, seconds: float, what: str) -> Iterator[None]:
        """Show a second bar that takes so long by itself."""
        task = self._progress.add_task(what, total=seconds, timed=True, unit=f"{seconds:,.0f} s")
        try:
            yield
        finally:
            self._progress.remove_task(task)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _counted(self) -> str:
        return f"{self._done}" if self._total is None else f"{self._done}/{self._total}"

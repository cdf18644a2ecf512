"""Follow a switch from one second to the next: the other side of ``live``, for the page and for ``top``.

Theory of operation. ``live`` gives the rows that have changed since a numbered answer. A switch with another
epoch is another supervisor, whose numbers mean nothing to us; with another sequence, ports have come, gone or
changed. Both times all rows are asked for again, so what a viewer has of a port that left goes.

Example: 250 ports, one of which sends: the first answer has 250 rows (``whole``), the next ones one row each.
When a VM attaches, the next answer is whole again, with 251 rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Json = dict[str, Any]
Ask = Callable[..., Any]


class News(NamedTuple):
    """One answer."""

    head: Json
    """Without its rows: ``epoch``, ``sequence``, ``uptime_s``, ``talks``, ``gateway``, ``event``."""
    rows: list[Json]
    """The rows of ports that have changed, by the names of their columns."""
    whole: bool
    """Whether they are the rows of all ports."""


class Following:
    """The answers of one switch, for one viewer."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._number = 0
        self._table: tuple[object, object] | None = None

    def next(self) -> News:
        """Ask, and return what has changed since the last time. Raises what ``ask`` raises."""
        live = self._ask("live", after=self._number)
        whole = self._table != (live["epoch"], live["sequence"])
        if whole and self._number:
            live = self._ask("live", after=0)
        self._number, self._table = live["number"], (live["epoch"], live["sequence"])
        columns = live.pop("columns")
        rows = [dict(zip(columns, row, strict=True)) for row in live.pop("ports")]
        return News(live, rows, whole)

"""Answer ``live``: rows of numbers that change every second, for viewers that ask again and again.

Theory of operation
-------------------
``stats`` reads each worker's process, which costs more than everything else together. A page or a terminal
that is redrawn every second seldom needs that. A row here comes from the worker's stats page alone, and it
has numbers only: COLUMNS names them. ``drops`` has the reasons and their counts of frames.

Most ports of a large switch are idle most of the time, so an answer has only the rows that have changed.
Answers are numbered, and a row has the number of the first answer in which it was as it is now. A viewer asks
for the rows ``after`` the number of its last answer, 0 for all. So any number of viewers can ask at different
times, and nothing is kept for them.

    answer 7: web (1) has 10 frames, db (2) 20     viewer A has both rows
    answer 8: web has 11                           viewer B asks after 0: both rows
    answer 9: web has 11                           viewer A asks after 7: the row of web; B after 8: no row

``talks`` has the pairs of ports that talk, with bytes a second of the frames that go to one port alone.
Workers count bytes for each peer, so a rate needs an earlier reading. As with the CPU use of processes, a
reading is replaced when it is ``BASELINE_S`` old, so that two viewers do not spoil each other's answers. An
answer has at most ``MOST_TALKS`` pairs: those with most bytes.

Example: web (1) sends 3,000,000 bytes to db (2) between two questions a second apart, db 40,000 back:
``talks`` is ``[[1, 2, 3000000], [2, 1, 40000]]``.
"""

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from supervisor.console.readings import Reading
from supervisor.console.stats import DROPS, TRAFFIC
from supervisor.ports.view import PortView

COLUMNS = ("port", "state", "stalled", "rx_bytes", "tx_bytes", "rx_frames", "tx_frames", "queue", "drops")
BASELINE_S = 0.25
MOST_TALKS = 500
"""250 pairs that talk both ways; a map with more lines is unreadable."""

Row = tuple[object, ...]
Sent = Mapping[int, Iterable[tuple[int, int]]]
"""By port: (peer port, bytes for it so far); the same object for as long as it says the same."""
_FRAMES_AND_BYTES = tuple(TRAFFIC[way][index] for index in (1, 0) for way in ("rx", "tx"))


class _Known(NamedTuple):
    """A row, what it was made from, and the number of the first answer that had it."""

    reading: Reading | None
    rest: tuple[object, ...]
    row: Row
    number: int


class Rows:
    """The rows of all ports, from one answer to the next."""

    def __init__(self) -> None:
        self.number = 0
        """Of the last answer."""
        self._known: dict[int, _Known] = {}

    def update(
        self, views: Iterable[PortView], readings: Mapping[int, Reading], full: Mapping[int, int]
    ) -> None:
        """Take what is now; a reading that says the same as last time has to be the same object.

        ``full``: by port, the frames for it that full rings lost.
        """
        self.number += 1
        known: dict[int, _Known] = {}
        for view in views:
            port = view.record.port
            reading, rest = readings.get(port), (full.get(port, 0), view.state, view.stalled)
            before = self._known.get(port)
            if before is None or before.reading is not reading or before.rest != rest:
                before = _Known(reading, rest, _row(view, reading, full.get(port, 0)), self.number)
            known[port] = before
        self._known = known

    def after(self, number: int) -> list[Row]:
        """Return the rows that have changed since the answer of that number, by port; 0: all."""
        return sorted((each.row for each in self._known.values() if each.number > number), key=_port_of)


def _port_of(row: Row) -> int:
    assert isinstance(row[0], int)
    return row[0]


def _row(view: PortView, reading: Reading | None, full: int) -> Row:
    """Return the row of a port; one whose page could not be read yet has zeros."""
    counters = {} if reading is None else reading.counters
    drops = {reason: counters[reason] for reason in DROPS if counters.get(reason)}
    if full:
        drops["egress_full"] = full
    figures = [counters.get(name, 0) for name in _FRAMES_AND_BYTES]
    return (view.record.port, view.state, view.stalled, *figures, counters.get("egress_bytes", 0), drops)


class Talks:
    """The rates of all pairs of ports, from one reading to the next."""

    def __init__(self) -> None:
        self._then = 0.0
        self._before: Sent = {}

    def rates(self, sent: Sent, now: float) -> list[tuple[int, int, int]]:
        """Return (port, peer, bytes a second) of pairs that sent since the last reading, most bytes first."""
        elapsed = now - self._then
        moved: list[tuple[int, int, int]] = []
        for port, row in sent.items():
            before = self._before.get(port, ())
            # A pair that begins has no earlier reading, and neither has the first question.
            if not self._then or elapsed <= 0 or before is row:
                continue
            then = dict(before)
            moved += [
                (round((count - then.get(peer, 0)) / elapsed), port, peer)
                for peer, count in row
                if count > then.get(peer, 0)
            ]
        if elapsed >= BASELINE_S:
            self._then, self._before = now, dict(sent)
        return [(port, peer, rate) for rate, port, peer in heapq.nlargest(MOST_TALKS, moved)]

"""Answer ``live``: rows of numbers that change every second, for viewers that ask again and again.

Theory of operation
-------------------
``stats`` reads each worker's process, which costs more than everything else together. A page or a terminal
that is redrawn every second seldom needs that. A row here comes from the worker's stats page alone, and it
has numbers only: COLUMNS names them. ``drops`` has the reasons and their counts of frames.

``talks`` has the pairs of ports that talk, with bytes a second of the frames that go to one port alone.
Workers count bytes for each peer, so a rate needs an earlier reading. As with the CPU use of processes, a
reading is replaced when it is ``BASELINE_S`` old, so that two viewers do not spoil each other's answers. An
answer has at most ``MOST_TALKS`` pairs: those with most bytes.

Example: web (1) sends 3,000,000 bytes to db (2) between two questions a second apart, db 40,000 back:
``talks`` is ``[[1, 2, 3000000], [2, 1, 40000]]``.
"""

import heapq
from collections.abc import Iterable, Mapping

from supervisor.console.stats import DROPS, TRAFFIC, Departed, Reading, all_egress_full
from supervisor.ports.view import PortView

COLUMNS = ("port", "state", "stalled", "rx_bytes", "tx_bytes", "rx_frames", "tx_frames", "queue", "drops")
BASELINE_S = 0.25
MOST_TALKS = 500
"""250 pairs that talk both ways; a map with more lines is unreadable."""

Sent = Mapping[int, Iterable[tuple[int, int]]]
"""By port: (peer port, bytes for it so far)."""
_FRAMES_AND_BYTES = tuple(TRAFFIC[way][index] for index in (1, 0) for way in ("rx", "tx"))


def rows(
    views: Iterable[PortView], readings: Mapping[int, Reading], departed: Departed
) -> list[tuple[object, ...]]:
    """Return a row for each port; one whose page could not be read yet has zeros."""
    full = all_egress_full(readings, departed)
    made = []
    for view in sorted(views, key=lambda view: view.record.port):
        port = view.record.port
        counters = readings[port].counters if port in readings else {}
        drops = {reason: counters[reason] for reason in DROPS if counters.get(reason)}
        if full.get(port):
            drops["egress_full"] = full[port]
        figures = [counters.get(name, 0) for name in _FRAMES_AND_BYTES]
        made.append((port, view.state, view.stalled, *figures, counters.get("egress_bytes", 0), drops))
    return made


class Talks:
    """The rates of all pairs of ports, from one reading to the next."""

    def __init__(self) -> None:
        self._then = 0.0
        self._before: dict[tuple[int, int], int] = {}

    def rates(self, sent: Sent, now: float) -> list[tuple[int, int, int]]:
        """Return (port, peer, bytes a second) of pairs that sent since the last reading, most bytes first."""
        total = {(port, peer): count for port, row in sent.items() for peer, count in row}
        elapsed = now - self._then
        # A pair that begins has no earlier reading, and neither has the first question.
        moved = [
            (round((count - self._before.get(pair, 0)) / elapsed), *pair)
            for pair, count in total.items()
            if self._then and elapsed > 0 and count > self._before.get(pair, 0)
        ]
        if elapsed >= BASELINE_S:
            self._then, self._before = now, total
        return [(port, peer, rate) for rate, port, peer in heapq.nlargest(MOST_TALKS, moved)]

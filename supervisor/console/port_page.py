"""One port's stats page, and what it said at the last look.

A page has the time at which its worker published last. A page that has published nothing since the last look
is not read, and one that has counted nothing is not read further.

    look at 10.0 s    the page was published at 9.2: read; counters as before: its reading is kept
    look at 11.0 s    still 9.2: nothing to do
    look at 12.0 s    11.7, 5 frames more: another reading, and a row in the history
"""

from forwarder import _core
from supervisor.console.history import MEANT, NAMES
from supervisor.console.readings import Reading

FLOODED = slice(8 * NAMES.index("flooded"), 8 * NAMES.index("flooded") + 8)
"""That counter's place in a snapshot."""
IPV4_MAPPED = bytes(10) + b"\xff\xff"


class PortPage:
    """The page; the port has it from its arrival to its departure."""

    __slots__ = ("born", "counters", "full", "has_flooded", "page", "published_at", "reading", "sent")

    def __init__(self, born: int, page: _core.StatsPage) -> None:
        self.born = born
        self.page = page
        self.published_at = -1.0
        self.counters = b""
        """As ``snapshot`` gives them."""
        self.full = 0
        """Frames for the port that a full ring lost, wherever that was counted."""
        self.has_flooded = False
        """Whether its VM may have asked for a neighbour since the last ``in_use``."""
        self.reading: Reading | None = None
        self.sent: list[tuple[int, int]] = []

    def look(self, published_at: float) -> bool:
        """Read the page, published at that time; return whether it has counted anything since then."""
        self.published_at = published_at
        counters = self.page.snapshot()
        moved = counters[:MEANT] != self.counters[:MEANT]
        self.has_flooded |= counters[FLOODED] != self.counters[FLOODED]
        self.counters = counters
        if moved:
            self.reading = None
        return moved

    def read(self) -> Reading:
        """Return the reading, the same object until something is counted; its losses are without meaning."""
        if self.reading is None:
            self.reading = Reading(self.born, self.page.counters())
            self.sent = self.page.sent()
        return self.reading

    def askers(self) -> tuple[int, ...]:
        """Return the IPv4 addresses with which the VM has asked for neighbours, outside of VLANs."""
        found = {
            int.from_bytes(sender[-4:], "big")
            for sender, _, _, _, _, vlan in self.page.questions()
            if not vlan and sender.startswith(IPV4_MAPPED)
        }
        return tuple(sorted(found))

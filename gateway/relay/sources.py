"""Bound how many new IP addresses each port may use: a pure table.

Each address that a guest uses becomes a neighbour of the gateway, and the kernel's table of neighbours is one
for the whole machine (``gc_thresh3``, 1,024 for each IP version). So a port may use ``BURST`` new addresses
at one moment, and ``RATE`` a second; the table knows the last ``MOST`` of each port. A guest has a handful.
Containers behind one port have more, and ask again.

``inside.limits`` has the same bound for what the namespace's kernel answers, by Ethernet address.

    a guest pings from 1,000 addresses in a second: 34 of them become neighbours

``now`` is monotonic time in seconds.
"""

from collections import OrderedDict
from collections.abc import Hashable

from gateway.rates import Rates

RATE, BURST = 2, 32
MOST = 256


class Sources:
    """The addresses that each port uses."""

    def __init__(self) -> None:
        self._new = Rates(RATE, BURST, 0)
        self._known: dict[Hashable, OrderedDict[bytes, None]] = {}

    def allows(self, owner: Hashable, source: bytes, now: float) -> bool:
        """Note that ``owner`` uses an address; return whether it may."""
        mine = self._known.setdefault(owner, OrderedDict())
        if source in mine:
            mine.move_to_end(source)
            return True
        if self._new.take(owner, now) is None:
            return False
        mine[source] = None
        if len(mine) > MOST:
            mine.popitem(last=False)
        return True

    def forget(self, owner: Hashable) -> None:
        """Forget a port that has left."""
        self._new.forget(owner)
        self._known.pop(owner, None)

"""The guests' ports to which connections from the host failed last, for ``supervisor explain``.

A failure is remembered with its counter and its time until a connection to that port succeeds.
Bound: ``MOST_PORTS``, the longest unchanged is forgotten first.
"""

from collections import OrderedDict
from collections.abc import Callable

from gateway.relay.policy import Address

MOST_PORTS = 64
"""More than an operator asks about."""

GuestPort = tuple[Address, int]


class RefusedPorts:
    """The ports, by address and number."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._ports: OrderedDict[GuestPort, tuple[str, float]] = OrderedDict()

    def failed(self, port: GuestPort, counter: str) -> None:
        """Note the counter of a failed connection."""
        self._ports[port] = counter, self._clock()
        self._ports.move_to_end(port)
        if len(self._ports) > MOST_PORTS:
            self._ports.popitem(last=False)

    def answered(self, port: GuestPort) -> None:
        """Forget a port that has answered."""
        self._ports.pop(port, None)

    def plain(self) -> list[dict[str, object]]:
        """Return all as plain data, the newest last."""
        return [
            {"address": str(address), "port": port, "way": counter, "age_s": self._clock() - at}
            for (address, port), (counter, at) in self._ports.items()
        ]

"""What becomes of leases, told to the supervisor for its events: few records, however often guests ask.

A lease is told when a guest gets it, when the guest renews it for the first time (later renewals say nothing
new), and when it ends. A refusal is told with its reason. ``WORDS`` has all that can be told.

**A share for each port.** A port may cause ``BURST`` records at one moment and ``RATE`` a second. Further
ones are counted in ``more`` of its next record, so a guest that asks a thousand times a second hides nothing
of the others.

    a guest asks with 1,000 MAC addresses in a second: 10 records, and a second later one with ``more`` 989
"""

from collections.abc import Callable
from ipaddress import IPv4Address

from forwarder.names import format_mac
from gateway.leases.lease import Lease
from gateway.ports import Port
from gateway.rates import Rates

RATE, BURST = 1.0, 10
"""A VM asks once when it starts, and renews every half hour; one with guests of its own asks for each."""

ENDS = ("left", "released", "expired", "other-server")
"""Why a lease has ended: its VM left, its guest gave it back or did not renew it, or its guest took the offer
of another DHCP server."""

REFUSALS = ("no-address", "in-use", "not-offered", "declined")
"""Why a guest got no lease: no address is left for its port; the address that it asks for belongs to another
guest, or was not offered to it; it has found another station with the address."""

WORDS = ("given", "renewed", *ENDS, *REFUSALS)

Record = dict[str, object]


class News:
    """The records of one gateway; ``tell`` takes them, ``clock`` is monotonic, in seconds."""

    def __init__(self, tell: Callable[[Record], object], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._rates = Rates(RATE, BURST, 0)
        self._renewed: set[Lease] = set()
        self._more: dict[Port, int] = {}
        """Records of each port that were not told."""

    def granted(self, lease: Lease, *, again: bool) -> None:
        """Note that a guest has got a lease, or the one it has ``again``."""
        if not again:
            self._renewed.discard(lease)
            self._note("given", lease.port, lease.mac, lease.address, lease.name)
        elif lease not in self._renewed:
            self._renewed.add(lease)
            self._note("renewed", lease.port, lease.mac, lease.address, lease.name)

    def ended(self, lease: Lease, why: str) -> None:
        """Note that a lease has ended; ``why`` is one of ENDS."""
        self._renewed.discard(lease)
        self._note(why, lease.port, lease.mac, lease.address, lease.name)

    def refused(self, why: str, port: Port, mac: bytes, address: int = 0) -> None:
        """Note that a guest got no lease; ``why`` is one of REFUSALS."""
        self._note(why, port, mac, address, "")

    def forget(self, port: Port) -> None:
        """Forget a port that has left."""
        self._rates.forget(port)
        self._more.pop(port, None)

    def _note(self, word: str, port: Port, mac: bytes, address: int, host: str) -> None:
        if self._rates.take(port, self._clock()) is None:
            self._more[port] = self._more.get(port, 0) + 1
            return
        self._tell(
            {
                "word": word,
                "port": port.number,
                "born": port.born,
                "mac": format_mac(mac),
                "address": str(IPv4Address(address)) if address else "",
                "host": host,
                "more": self._more.pop(port, 0),
            }
        )

"""One lease: its states, and how long each of them lasts.

A lease goes through ``NEXT``: *offered* (for ``OFFER_S``), *bound* (for ``LEASE_S`` after each renewal),
*kept*. A lease becomes *kept* when its port has left, when it was released or when its time is over. A kept
address is not in use. An address is *declined* if a guest has found another station with it: it is not given
out for ``DECLINE_S``.

``now`` is monotonic time in seconds. Addresses are numbers, MAC addresses 6 bytes.
"""

import enum

from gateway.ports import Port

LEASE_S = 3600.0
"""The lease time, as gvproxy's. A guest renews after half of it."""

OFFER_S = 30.0
"""A client accepts an offer at once, or asks again within some seconds."""

DECLINE_S = 600.0


class LeaseState(enum.Enum):
    """The states of a lease; the value is the word that operators read."""

    OFFERED = "offered"
    BOUND = "bound"
    KEPT = "kept"
    DECLINED = "declined"


NEXT = {
    (LeaseState.KEPT, "offer"): LeaseState.OFFERED,
    (LeaseState.OFFERED, "offer"): LeaseState.OFFERED,
    (LeaseState.BOUND, "offer"): LeaseState.BOUND,
    (LeaseState.KEPT, "bind"): LeaseState.BOUND,
    (LeaseState.OFFERED, "bind"): LeaseState.BOUND,
    (LeaseState.BOUND, "bind"): LeaseState.BOUND,
    (LeaseState.OFFERED, "let go"): LeaseState.KEPT,
    (LeaseState.BOUND, "let go"): LeaseState.KEPT,
    (LeaseState.OFFERED, "decline"): LeaseState.DECLINED,
    (LeaseState.BOUND, "decline"): LeaseState.DECLINED,
    # Prohibited: to release a kept lease; any transition of a declined one, which is only forgotten.
}

LASTS = {LeaseState.OFFERED: OFFER_S, LeaseState.BOUND: LEASE_S, LeaseState.DECLINED: DECLINE_S}


class Lease:
    """One address and the guest it belongs to. Only the table changes it."""

    __slots__ = ("address", "ends", "mac", "name", "port", "state")

    def __init__(self, mac: bytes, port: Port, address: int) -> None:
        self.mac = mac
        self.port = port
        """The port that used it last; the port of a kept lease may have left."""
        self.address = address
        self.name = ""
        """The name in DNS; "": none."""
        self.state = LeaseState.KEPT
        self.ends = 0.0

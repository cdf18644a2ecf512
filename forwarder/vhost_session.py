"""The state of a vhost-user session, as value types, that a worker stores for its successor.

Descriptors go with it, in this order: each region's, each ring's kick and call if it has them, and the
front-end's back channel if there is one. The positions of the rings are not part of it: they are in the
guest's memory and in the port's stats page.
"""

from typing import NamedTuple, cast

from forwarder.checks import boolean, fields, integer, many
from forwarder.errors import PeerError

RINGS = 2
"""The rings of one pair: frames to the guest, frames from it."""

MOST_REGIONS = 32
"""Regions of a guest's memory, at most, as in the compiled core."""

MOST_ENTRIES = 32768
"""Entries of a ring, at most: a split virtqueue's limit (Virtual I/O Device 1.2, section 2.7)."""


class Region(NamedTuple):
    """One region of the guest's memory: a part of a file."""

    guest: int
    """Physical address in the guest."""
    size: int
    front_end: int
    """Virtual address in the front-end."""
    offset: int
    """Offset in the file."""


class Ring(NamedTuple):
    """One virtqueue; addresses are the front-end's."""

    entries: int = 0
    base: int = 0
    """Index at which the ring starts next."""
    descriptors: int = 0
    available: int = 0
    used: int = 0
    started: bool = False
    enabled: bool = False
    has_kick: bool = False
    has_call: bool = False


class VhostSession(NamedTuple):
    """The state of a session, as set by the front-end."""

    features: int = 0
    protocol_features: int = 0
    regions: tuple[Region, ...] = ()
    rings: tuple[Ring, ...] = (Ring(),) * RINGS
    has_backend: bool = False

    def descriptors(self) -> int:
        """Return the number of descriptors that go with it."""
        ends = sum(ring.has_kick + ring.has_call for ring in self.rings)
        return len(self.regions) + ends + self.has_backend


_ADDRESS = integer(0, (1 << 64) - 1)
_REGION = fields(Region, tuple((name, _ADDRESS) for name in Region._fields))
_RING = fields(
    Ring,
    (
        ("entries", integer(0, MOST_ENTRIES)),
        ("base", integer(0, 0xFFFF)),
        *((name, _ADDRESS) for name in ("descriptors", "available", "used")),
        *((name, boolean) for name in ("started", "enabled", "has_kick", "has_call")),
    ),
)


def _one_pair(value: object) -> object:
    rings = cast(tuple[Ring, ...], many(_RING, RINGS)(value))
    if len(rings) != RINGS or any(ring.started and not (ring.has_kick and ring.entries) for ring in rings):
        raise PeerError(f"these are not {RINGS} rings, or one runs without a kick")
    return rings


check_session = fields(
    VhostSession,
    (
        ("features", _ADDRESS),
        ("protocol_features", _ADDRESS),
        ("regions", many(_REGION, MOST_REGIONS)),
        ("rings", _one_pair),
        ("has_backend", boolean),
    ),
)
"""The check of a received session."""

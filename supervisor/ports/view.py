"""A port of the registry, as operators see it."""

from typing import NamedTuple

from forwarder.names import Identity, PortRecord


class PortView(NamedTuple):
    """The shown facts of one port."""

    record: PortRecord
    state: str
    stalled: bool
    unfinished: bool
    """Whether its VM leaves checksums undone that the switch does not finish."""
    since: float
    """Monotonic time of the VM's arrival."""
    identity: Identity | None
    """The worker's process; None while there is none."""
    restarts: int

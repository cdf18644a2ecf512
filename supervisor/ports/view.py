"""What the registry says of a port, as far as others look at it."""

from typing import NamedTuple

from forwarder.names import Identity, PortRecord


class PortView(NamedTuple):
    """What the registry says of one port, as far as it is shown."""

    record: PortRecord
    state: str
    stalled: bool
    unfinished: bool
    """Whether its VM leaves checksums undone that nobody finishes."""
    since: float
    """Monotonic time of the VM's arrival."""
    identity: Identity | None
    """The worker's process; None while there is none."""
    restarts: int

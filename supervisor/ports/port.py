"""One port in the registry: its record, its state and its history."""

from forwarder.names import Identity, PortRecord
from forwarder.restart_budget import Losses
from supervisor.ports.lifecycle import PortState


class Port:
    """One port; only the registry changes it."""

    __slots__ = (
        "identity",
        "joined",
        "losses",
        "older",
        "reason",
        "record",
        "reserved",
        "restarts",
        "retry_at",
        "since",
        "state",
    )

    def __init__(self, record: PortRecord, state: PortState, losses: Losses, now: float) -> None:
        self.record = record
        self.state = state
        self.losses = losses
        self.identity: Identity | None = None
        """The worker, in the states that have one."""
        self.joined = False
        """Whether the other workers know it as a member."""
        self.reserved = False
        """Whether the other workers know it, without its name, from before its VM came (``reserve``)."""
        self.older = record.epoch
        """The last epoch of the ports that were there before: later ones are of younger ports."""
        self.restarts = 0
        """The number of replaced workers."""
        self.since = now
        """When it was attached or adopted."""
        self.retry_at = 0.0
        """When WAITING ends."""
        self.reason = ""
        """Why it is ENDING or PARKED."""

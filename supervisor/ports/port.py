"""One port as the registry knows it: its record, its state, and what it has been through."""

from forwarder.names import Identity, PortRecord
from forwarder.restart_budget import Losses
from supervisor.ports.lifecycle import PortState


class Port:
    """One port as the registry knows it; read it, only the registry changes it."""

    __slots__ = ("identity", "joined", "losses", "reason", "record", "restarts", "retry_at", "since", "state")

    def __init__(self, record: PortRecord, state: PortState, losses: Losses, now: float) -> None:
        self.record = record
        self.state = state
        self.losses = losses
        self.identity: Identity | None = None
        """Its worker, in the states that have one."""
        self.joined = False
        """Whether the others believe that it is a member."""
        self.restarts = 0
        """Workers it has had to get again."""
        self.since = now
        """When it was attached, or adopted."""
        self.retry_at = 0.0
        """When WAITING ends."""
        self.reason = ""
        """Why it is ENDING or PARKED."""

"""What the fleet stands among: the owner that carries out decisions, and the parts that it works with."""

from typing import NamedTuple, Protocol

from forwarder.names import PortId, PortRecord
from supervisor.attach.listeners import Listeners
from supervisor.console.sampler import Sampler
from supervisor.fleet.fd_store import FdStore
from supervisor.ports.actions import Action
from supervisor.ports.registry import Registry


class FleetOwner(Protocol):
    """Who carries out what the registry decides."""

    def do(self, decided: list[Action]) -> None:
        """Carry out actions."""

    def gone(self, port: PortId, reason: str) -> None:
        """Note that a VM has gone without its worker seeing it."""

    def adopted(self, record: PortRecord) -> None:
        """Note that a port was taken over with its worker."""


class FleetParts(NamedTuple):
    """What the fleet works with and does not own."""

    runtime_dir: str
    registry: Registry
    fd_store: FdStore
    sampler: Sampler
    listeners: Listeners

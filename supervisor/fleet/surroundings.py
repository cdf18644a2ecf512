"""The interfaces of the fleet: the owner that carries out actions, and the parts that the fleet uses."""

from typing import NamedTuple, Protocol

from forwarder.names import PortId, PortRecord
from supervisor.attach.listeners import Listeners
from supervisor.console.sampler import Sampler
from supervisor.fleet.fd_store import FdStore
from supervisor.ports.actions import Action
from supervisor.ports.registry import Registry


class FleetOwner(Protocol):
    """The part that carries out the registry's actions."""

    def do(self, decided: list[Action]) -> None:
        """Carry out actions."""

    def gone(self, port: PortId, reason: str) -> None:
        """Note that a VM has gone, which its worker may not have seen."""

    def adopted(self, record: PortRecord) -> None:
        """Note that a port was taken over with its worker."""


class FleetParts(NamedTuple):
    """The parts that the fleet uses and does not own."""

    runtime_dir: str
    registry: Registry
    fd_store: FdStore
    sampler: Sampler
    listeners: Listeners

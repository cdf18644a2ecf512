"""The interfaces of the fleet: its owner, and the parts that it uses."""

from typing import NamedTuple, Protocol

from forwarder.names import PortId, PortRecord
from supervisor.attach.listeners import Listeners
from supervisor.console.sampler import Sampler
from supervisor.pool.template_process import TemplateProcess
from supervisor.ports.actions import Action
from supervisor.ports.registry import Registry
from supervisor.rings.fd_store import FdStore


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
    template: TemplateProcess | None
    """The first process of the template, if it has been started already."""

"""The interfaces of the fleet: its owner, the parts that it uses, and what rings ask it."""

from typing import NamedTuple, Protocol

from forwarder.names import Incarnation, PortId, PortRecord
from supervisor.attach.listeners import Listeners
from supervisor.console.sampler import Sampler
from supervisor.fleet.channels import WorkerChannel
from supervisor.fleet.fd_store import FdStore
from supervisor.fleet.template_process import TemplateProcess
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
    template: TemplateProcess | None
    """The first process of the template, if it has been started already."""


class RingOwner(Protocol):
    """The part that knows the worker and the record of each port, as the rings see it."""

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        """Return the worker of this epoch of a port, if it forwards."""

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        """Return the present record of this epoch of a port; None if it is over."""

    def records(self) -> list[PortRecord]:
        """Return the present records of all ports."""

    def replace(self, worker: WorkerChannel) -> None:
        """Kill a worker; its port gets another one."""

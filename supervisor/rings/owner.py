"""The interface of the owner of rings: what they ask about workers and ports."""

from typing import Protocol

from forwarder.names import Incarnation, PortRecord
from supervisor.pool.channels import WorkerChannel


class RingOwner(Protocol):
    """The part that knows the worker and the record of each port, as the rings see it."""

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        """Return the worker of this epoch of a port, if it forwards and has a channel."""

    def is_live(self, served: Incarnation) -> bool:
        """Whether this epoch of a port forwards, with or without a channel to its worker."""

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        """Return the present record of this epoch of a port; None if it is over."""

    def reserved(self, wanted: Incarnation) -> PortRecord | None:
        """Return the record of a reserved port, until its first worker forwards."""

    def records(self) -> list[PortRecord]:
        """Return the present records of all ports."""

    def replace(self, served: Incarnation) -> None:
        """Kill the worker of this epoch of a port, which gets another one."""

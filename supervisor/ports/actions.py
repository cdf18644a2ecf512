"""What the registry decides that others have to do; ``PortManager`` carries it out."""

from typing import NamedTuple

from forwarder.names import Identity, PortRecord


class AssignWorker(NamedTuple):
    """Give the port to a worker, then tell ``assigned`` (or ``worker_lost`` if none can be had)."""

    record: PortRecord


class Publish(NamedTuple):
    """Tell everybody: ``join``, ``change`` or ``leave``."""

    change: str
    record: PortRecord


class EndWorker(NamedTuple):
    """Make this worker end: cleanly, and if it does not, by force; then tell ``worker_lost``."""

    port: int
    epoch: int
    identity: Identity


class ReleaseVm(NamedTuple):
    """Close all descriptors of the port and free its rings; tell its listener that its VM is gone."""

    record: PortRecord
    reason: str


class Log(NamedTuple):
    """Say that ``event`` has happened to a port; ``level`` is a name of the logging module in lower case."""

    level: str
    text: str
    event: str
    record: PortRecord
    reason: str | None = None


Action = AssignWorker | Publish | EndWorker | ReleaseVm | Log

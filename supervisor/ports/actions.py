"""The actions that the registry decides; ``PortManager`` carries them out."""

from typing import NamedTuple

from forwarder.names import Identity, PortRecord


class AssignWorker(NamedTuple):
    """Give the port to a worker, then call ``assigned``, or ``worker_lost`` if there is no worker."""

    record: PortRecord


class Publish(NamedTuple):
    """Publish ``join``, ``change`` or ``leave`` to all workers.

    A reserved port (``reserve``) has other words. ``reserve`` is its join. ``arrive`` is the change when its
    VM is there: only its own worker waits for that. ``cancel`` is its leave: no worker waits for that.
    """

    change: str
    record: PortRecord


class EndWorker(NamedTuple):
    """End this worker, by force if it does not end by itself; then call ``worker_lost``."""

    port: int
    epoch: int
    identity: Identity


class ReleaseVm(NamedTuple):
    """Close all descriptors of the port, free its rings, and tell its listener that its VM is gone."""

    record: PortRecord
    reason: str


class Log(NamedTuple):
    """Log an event of a port; ``level`` is a level of the logging module in lower case."""

    level: str
    text: str
    event: str
    record: PortRecord
    reason: str | None = None


Action = AssignWorker | Publish | EndWorker | ReleaseVm | Log

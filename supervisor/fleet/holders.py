"""The worker that serves each port, and what is asked about it.

Theory of operation. The registry has the records of ports; here is the channel of the worker that has the
port, from the moment it is handed over until its channel has ended. A port that was lost and given again has
another epoch, so what was meant for the worker of before reaches no other one.

Example: port 3, epoch 7, is given to worker 4711 (``connect``). ``holder(3, 7)`` is its channel as soon as
the registry has it forward, ``holder(3, 6)`` nothing. The worker dies: ``lost`` says which port it served.
"""

from collections.abc import Callable

from forwarder.messages import Message
from forwarder.names import Identity, Incarnation, PortRecord
from supervisor.pool.channels import WorkerChannel, WorkerChannels
from supervisor.ports.registry import Registry


class Holders:
    """The workers of all ports."""

    def __init__(
        self, registry: Registry, channels: WorkerChannels, kill: Callable[[Identity], object]
    ) -> None:
        """``kill`` ends a process by SIGKILL."""
        self._registry = registry
        self._channels = channels
        self._kill = kill
        self._workers: dict[int, WorkerChannel] = {}

    def __len__(self) -> int:
        """Return how many ports have a worker."""
        return len(self._workers)

    def all(self) -> list[WorkerChannel]:
        """Return the workers of all ports."""
        return list(self._workers.values())

    def at(self, port: int) -> WorkerChannel | None:
        """Return the worker of a port, whether it forwards or not."""
        return self._workers.get(port)

    def connect(self, worker: WorkerChannel, served: Incarnation) -> None:
        """Note that a worker has got a port."""
        worker.served = served
        self._workers[served.port] = worker

    def lost(self, worker: WorkerChannel) -> Incarnation | None:
        """Forget a worker whose channel has ended; return the port that it served, if it did."""
        served = worker.served
        if served is None or self._workers.get(served.port) is not worker:
            return None
        del self._workers[served.port]
        return served

    def forget(self, port: int) -> None:
        """Forget a port that has gone."""
        self._workers.pop(port, None)

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        """Return the worker of this epoch of a port, if it forwards and has a channel."""
        return self._workers.get(port) if self._registry.live(port, epoch) else None

    def is_live(self, served: Incarnation) -> bool:
        """Whether this epoch of a port forwards, with or without a channel to its worker."""
        return self._registry.live(*served)

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        """Return the present record of this epoch of a port; None if it is over."""
        port = self._registry.get(incarnation.port)
        return None if port is None or port.record.incarnation != incarnation else port.record

    def reserved(self, wanted: Incarnation) -> PortRecord | None:
        """Return the record of a reserved port, until its first worker forwards."""
        return self._registry.reserved(wanted)

    def records(self) -> list[PortRecord]:
        """Return the present records of all ports."""
        return [port.record for port in self._registry]

    def forwarding(self) -> list[PortRecord]:
        """Return the ports that forward and whose worker has a channel."""
        return [record for record in self.records() if self.holder(*record.incarnation) is not None]

    def tell(self, served: Incarnation, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send to the worker of this epoch of a port; return False if it is over."""
        worker = self.holder(*served)
        return worker is not None and self._channels.send(worker, message, descriptors)

    def replace(self, served: Incarnation) -> None:
        """Kill the worker of this epoch of a port, which gets another one."""
        port = self._registry.get(served.port)
        if port is not None and port.record.incarnation == served and port.identity is not None:
            self._kill(port.identity)

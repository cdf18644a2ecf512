"""Workers' channels with the test at the other end: what a worker says, and what it is given."""

from __future__ import annotations

import os
import socket

from forwarder import _core
from forwarder._core import LAYOUT
from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.loop import Loop
from forwarder.messages import Claim, KeepSession, Message, Ready, RingSealed, RingTx
from forwarder.names import Cell, Identity, Incarnation, Policy, PortRecord
from supervisor.pool.channels import Report, RingMessage, WorkerChannel, WorkerChannels
from supervisor.rings.fd_store import FdStore
from supervisor.rings.rings import Rings
from tests.helpers.fakes import reraise, turn_a_while, turn_until

CELL = Cell(("user",), 0)


def record(port: int, epoch: int | None = None, policy: Policy = Policy()) -> PortRecord:  # noqa: B008
    return PortRecord(port, epoch or port, port, f"vm-{port}", "bess", policy)


class FleetBench:
    """Channels and rings, with a registry that believes what the test says."""

    def __init__(self) -> None:
        self.loop = Loop(reraise)
        self.spares: list[WorkerChannel] = []
        self.claims: list[tuple[WorkerChannel, Claim, tuple[int, ...]]] = []
        self.gone: list[WorkerChannel] = []
        self.replaced: list[Incarnation] = []
        self.reports: list[tuple[int, Report]] = []
        self.workers: dict[int, WorkerChannel] = {}
        self.registry: dict[int, PortRecord] = {}
        self.reserve: dict[int, PortRecord] = {}
        self.live: set[tuple[int, int]] = set()
        self.fd_store = FdStore()
        self.now = 0.0
        self.channels = WorkerChannels(self.loop, self, lambda: self.now)
        self.moved: list[int] = []
        self.rings = Rings(self.channels, self.fd_store, self, self.moved.append)
        self._ends: list[Channel] = []

    # As ChannelHandler and RingOwner.

    def ready(self, worker: WorkerChannel, version: int, proc: tuple[int, ...]) -> None:
        close_all(proc)
        self.spares.append(worker)

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        self.claims.append((worker, claim, descriptors))

    def lost(self, worker: WorkerChannel) -> None:
        self.gone.append(worker)

    def reported(self, served: Incarnation, worker: WorkerChannel, report: Report) -> None:
        self.reports.append((served.port, report))

    def asked(self, served: Incarnation, worker: WorkerChannel, message: RingMessage) -> None:
        self.rings.asked(served, worker, message, self.now)

    def kept(self, served: Incarnation, message: KeepSession, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        return self.workers.get(port) if (port, epoch) in self.live else None

    def is_live(self, served: Incarnation) -> bool:
        return served in self.live

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        record = self.registry.get(incarnation.port)
        return record if record is not None and record.incarnation == incarnation else None

    def reserved(self, wanted: Incarnation) -> PortRecord | None:
        record = self.reserve.get(wanted.port)
        return record if record is not None and record.incarnation == wanted else None

    def records(self) -> list[PortRecord]:
        return list(self.registry.values())

    def replace(self, served: Incarnation) -> None:
        self.replaced.append(served)

    # What the test does.

    def channel(self) -> Channel:
        """A worker's end of a new channel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends.append(Channel(theirs))
        self.channels.add(Identity(1000 + len(self._ends), 1), Channel(ours))
        return self._ends[-1]

    def spare(self) -> tuple[Channel, WorkerChannel]:
        channel, before = self.channel(), len(self.spares)
        null = os.open(os.devnull, os.O_RDONLY)
        channel.send(Ready(LAYOUT, CELL), (null, null))
        os.close(null)
        turn_until(self.loop, lambda: len(self.spares) > before)
        return channel, self.spares[-1]

    def worker(self, port: int, policy: Policy = Policy(), epoch: int | None = None) -> Channel:  # noqa: B008
        """A worker that has a port and forwards; the port's next one, with an ``epoch``."""
        channel, worker = self.spare()
        if epoch is None:
            self.fd_store.take(port, os.open(os.devnull, os.O_RDONLY))
        self.registry[port] = record(port, epoch, policy)
        worker.served = self.registry[port].incarnation
        self.fd_store.for_worker(worker.served)
        self.workers[port] = worker
        self.live.add((port, worker.served.epoch))
        return channel

    def receive(self, channel: Channel) -> tuple[Message, tuple[int, ...]]:
        found: list[tuple[Message, tuple[int, ...]]] = []

        def received() -> bool:
            message = channel.receive()
            if message is not None:
                found.append(message)
            return bool(found)

        turn_until(self.loop, received)
        return found[0]

    def sealed(self, producer: Channel, port: int) -> tuple[tuple[int, ...], _core.RingWriter]:
        """Take a ring as its producer does, mapped and sealed by that, and say so."""
        message, fds = self.receive(producer)
        assert isinstance(message, RingTx)
        source = next(number for number, each in self.workers.items() if self.end_of(each) is producer)
        writer = _core.RingWriter(
            fds[0], fds[1], source, self.registry[source].epoch, message.port, message.epoch
        )
        producer.send(RingSealed(port, message.epoch))
        return fds, writer

    def end_of(self, worker: WorkerChannel) -> Channel:
        """The test's end of a worker's channel."""
        return self._ends[worker.pid - 1001]

    def ended(self, channel: Channel) -> bool:
        turn_a_while(self.loop)
        try:
            channel.receive()
        except ChannelClosedError:
            return True
        return False

    def close(self) -> None:
        for channel in self._ends:
            channel.close()
        self.rings.close()
        self.channels.close()
        self.fd_store.close()
        self.loop.close()

"""The workers of one switch: puts pool, rings and membership together and passes events between them.

Theory of operation. A worker is started ahead of need (``worker_pool``) and reports that it is ready in its
cell (``cells``). It gets a port with its descriptors (``fd_store``), reports over its channel (``channels``)
and asks for rings there (``rings``); ``holders`` knows the worker of each port. The registry decides what a
report means; its actions come back by ``want``, ``publish``, ``end_worker`` and ``release``. Changes of
membership go to all workers at once (``publisher``), those of newcomers to one worker after the other
(``join_rollout``). ``watch`` notices what goes wrong. A supervisor that follows a dead one begins with
``take_over``.

Example: a VM connects, ``want(3)``. The pool hands port 3 to a spare (``give``). Its next message over the
same channel is Hello (``reported``): the registry publishes port 3, and ``publish`` rolls it out.

Runs in the thread of the loop, like all of the supervisor.
"""

import time
from collections.abc import Callable

from forwarder._core import LAYOUT
from forwarder.channel import Channel, close_all
from forwarder.errors import LocalError, PeerError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.membership import MembershipLog
from forwarder.messages import (
    Beat,
    Claim,
    Drain,
    Goodbye,
    Guarded,
    Heartbeat,
    Hello,
    KeepSession,
    Note,
    SnapshotRequest,
)
from forwarder.names import TRANSPORT_KIND, Cell, Identity, Incarnation, PortRecord
from supervisor.attach.listener_common import hung_up
from supervisor.base.cells import CellPolicy
from supervisor.base.logs import Throttle, log, say
from supervisor.base.zmq_sockets import Context
from supervisor.fleet.expected_claims import ExpectedClaims
from supervisor.fleet.guards import Guards
from supervisor.fleet.holders import Holders
from supervisor.fleet.surroundings import FleetOwner, FleetParts
from supervisor.fleet.takeover import TakeOver
from supervisor.fleet.watch import Watch
from supervisor.membership.confirmations import Confirmations
from supervisor.membership.join_rollout import JoinRollout
from supervisor.membership.publisher import Publisher
from supervisor.pool.channels import Report, RingMessage, WorkerChannel, WorkerChannels
from supervisor.pool.pool_policy import READY_S
from supervisor.pool.worker_pool import WorkerPool
from supervisor.ports.in_force import Missing
from supervisor.rings.rings import Rings


class Fleet:
    """All workers."""

    def __init__(
        self,
        loop: Loop,
        context: Context,
        membership: MembershipLog,
        owner: FleetOwner,
        parts: FleetParts,
        *,
        cells: CellPolicy,
    ) -> None:
        self._runtime_dir, self._registry, self._fd_store, self._sampler, listeners, template = parts
        self._owner = owner
        self._channels = WorkerChannels(loop, self, time.monotonic)
        self.publisher = Publisher(loop, context, self._runtime_dir, membership, self._subscribed)
        self.cells = cells
        self.guards = Guards(self._channels)
        self._confirmations = Confirmations()
        self._expected_claims = ExpectedClaims(self._runtime_dir)
        self._notes = Throttle()
        self._pool = WorkerPool(loop, self._runtime_dir, self, template)
        self.holders = Holders(self._registry, self._channels, self._pool.processes.kill)
        """The worker of each port."""
        self.watch = Watch(
            self._runtime_dir,
            self.holders,
            self._fd_store,
            self._sampler,
            self._registry.name_of,
            pulse_s=lambda: self.publisher.last_beat.pulse_ms / 1000,
        )
        self._rings = Rings(self._channels, self._fd_store, self.holders, self._confirmations.moved)
        self._takeover = TakeOver(self._registry, self._fd_store, self._pool, listeners, self.cells)
        self._join_rollout = JoinRollout(self.publisher, self._channels, self._fd_store, self.holders.record)
        self.steps: tuple[Callable[[float], object], ...] = (
            lambda _: self.publisher.receive(),
            self._channels.tick,
            *self.watch.steps,
            self._confirmations.tick,
            self._join_rollout.tick,
            self._rings.moves.tick,
            self._pool.tick,
        )
        """The steps of each turn; a step returns whether there may be more to do."""
        self._parts = (
            self._channels,
            self.watch,
            self._confirmations,
            self._join_rollout,
            self._rings.moves,
            self._pool,
        )

    def __len__(self) -> int:
        """Return how many processes have not ended."""
        return len(self._pool.processes)

    @property
    def serves(self) -> bool:
        """Whether a worker serves a port."""
        return bool(self.holders)

    def deadline(self) -> float:
        """When a step has something to do, unless it has returned that it has."""
        return min(part.deadline() for part in self._parts)

    def wait_for_cell(self, turn: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Wait for a first worker in its cell, if a cell is required, or until the switch is ``stopping``.

        Raises LocalError if that is impossible.
        """
        deadline = time.monotonic() + READY_S
        while self.cells.required and self.cells.seen is None and time.monotonic() < deadline:
            if stopping():
                return
            turn()
        self.cells.check()

    def take_over(self, predecessor: int, turn: Callable[[float], None]) -> None:
        """Take over the workers of a dead supervisor; ``turn`` runs the loop for at most that long."""
        self._takeover.begin(self._runtime_dir, time.monotonic())
        left = len(self._takeover.left)
        workers = "1 worker" if left == 1 else f"{left} workers"
        text = f"supervisor {predecessor} of this directory did not end cleanly and left {workers}"
        say("takeover", f"{text}; taking over", "warning", predecessor=predecessor, workers=left)
        self.publisher.quiet = True
        while wait := self._takeover.wait(time.monotonic()):
            turn(min(0.05, wait))
        self._takeover.close(self._runtime_dir)
        self.publisher.speak(time.monotonic())
        self._takeover.await_end(turn)

    def stop(self, now: float) -> None:
        """End the workers without a port, and start no more."""
        self._pool.stop(now)

    def close(self) -> None:
        """Close everything; workers that serve a port go on."""
        self._pool.close()
        self.publisher.close()
        self._channels.close()
        self._rings.close()

    # Actions of the registry.

    def want(self, wanted: Incarnation) -> None:
        """Get a worker for a port."""
        self._pool.want(wanted)

    def publish(self, change: str, record: PortRecord) -> None:
        """Tell all workers of a change."""
        now = time.monotonic()
        if change == "reserve":
            try:
                self._fd_store.reserve(record.incarnation)
            except LocalError as error:
                self._notes.warning("reserve", f"port {record.port} is not made known in advance: {error}")
                self._registry.reserve.give_up(record.port, now)
                return
        else:
            self._fd_store.sealed(record.port)
            self._rings.changing(self.publisher.log.get(record.port), record, now)
            if change in ("join", "arrive"):
                self._rings.moves.hurry(record.incarnation, now)
            self._expected_claims.renew(record)
        self._join_rollout.publish(change, record)
        log.debug("port %d (%s): published %s", record.port, record.name, change)

    def confirmed(self, port: int, *, everywhere: bool) -> Future[Missing]:
        """Return a future: what is missing until everything that was published is in force.

        ``everywhere``: at the workers of all ports, and in their floods; or only at the worker of ``port``.
        """
        ports, floods = {port}, set[int]()
        if everywhere:
            ports |= {each.port for each in self.holders.records() if self._registry.forwards(each.port)}
            floods = self._rings.moves.under_way()
            self.publisher.beat_soon()  # each worker answers with a heartbeat
        return self._confirmations.expect(self.publisher.log.sequence, ports, floods, time.monotonic())

    def end_worker(self, port: int, identity: Identity) -> None:
        """End this worker of a port."""
        worker = self.holders.at(port)
        notified = worker is not None and worker.identity == identity and self._channels.send(worker, Drain())
        self._pool.processes.end(identity, time.monotonic(), notified=notified)

    def release(self, port: int) -> None:
        """Forget a port whose worker is gone."""
        self.watch.forget(port)
        self._confirmations.forget(port)
        self.holders.forget(port)
        self._rings.forget(port)

    # Messages of workers.

    def ready(self, worker: WorkerChannel, layout: int, proc: tuple[int, ...]) -> None:
        """Take a spare worker, with its cell."""
        cell = self._meet(worker, proc)
        other = f"its shared memory has layout {layout}, not {LAYOUT}"
        why_not = other if layout != LAYOUT else self.cells.refuses(cell)
        self.publisher.connect(worker.pid)
        if not self._pool.ready(worker, why_not):
            self._channels.drop(worker)

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        """Take a port back with a worker of a dead supervisor, or a worker that had lost its channel."""
        fds, proc = descriptors[:-2], descriptors[-2:]
        served = claim.record.incarnation
        if self._registry.serves(*served, worker.identity):
            close_all(descriptors)
            self._reconnect(worker, served)
            return
        now = time.monotonic()
        adopted, decided = self._takeover.adopt(claim, worker.identity, fds, now)
        if adopted is not None:
            worker.cell = adopted.cell
            self._meet(worker, proc)
            self._connect(worker, served)
            self._pool.adopted(worker, served)
            self.publisher.connect(worker.pid)
            self._expected_claims.put(worker.pid, adopted)
            self._owner.adopted(adopted.record)
            self.watch.inherit(served)
        else:
            close_all(descriptors)
            self._pool.refuse(worker.identity)
            self._channels.drop(worker)
        self._owner.do(decided)

    def lost(self, worker: WorkerChannel) -> None:
        """Note that a worker's channel has ended."""
        served = self.holders.lost(worker)
        if served is not None:
            self._rings.forget(served.port)
        self._pool.channel_lost(worker)

    def reported(self, served: Incarnation, worker: WorkerChannel, report: Report) -> None:
        """Take a worker's report about its port."""
        match report:
            case Hello():
                self._owner.do(self._registry.hello(*served))
            case Heartbeat():
                self._on_heartbeat(served, report)
            case Goodbye(reason):
                self._owner.do(self._registry.goodbye(*served, reason))
            case Guarded() if (record := self.holders.record(served)) is not None:
                self.guards.report(record, report)
            case Note(text):
                self._notes.warning("note", f"port {served.port}, its worker: {text}")
            case SnapshotRequest() if not self.publisher.quiet and worker.reads:
                for part in self.publisher.log.snapshot().parts():
                    self._channels.send(worker, part)
        self.watch.heard(served)

    def asked(self, served: Incarnation, worker: WorkerChannel, message: RingMessage) -> None:
        """Take a worker's message about rings."""
        self._rings.asked(served, worker, message, time.monotonic())

    def kept(self, served: Incarnation, message: KeepSession, descriptors: tuple[int, ...]) -> None:
        """Store a worker's session for its successor. Raises PeerError if its port has none."""
        record = self.holders.record(served)
        if record is not None and record.transport == "vhost":
            self._fd_store.keep(served.port, message, descriptors)
            return
        close_all(descriptors)
        if record is not None:
            raise PeerError(f"port {served.port} is of {record.transport} and has no session to keep")

    # Events of the worker pool.

    def connected(self, identity: Identity, channel: Channel) -> None:
        """Take the channel of a worker process."""
        self._channels.add(identity, channel)

    def give(self, worker: WorkerChannel, wanted: Incarnation) -> bool:
        """Hand a port to an idle worker; return False if the worker has not got it."""
        record, held = self.holders.record(wanted), self._fd_store.get(wanted.port)
        if record is None or held is None or not self._registry.pending(wanted.port):
            return False
        if hung_up(held.vm, TRANSPORT_KIND[record.transport]):
            self._owner.gone(record.id, "its VM left before it had a worker")
            return False
        try:
            descriptors = self._fd_store.for_worker(wanted)
        except LocalError as error:
            self.worker_lost(wanted, str(error))
            return False
        assign = self.publisher.assignment(record, worker.pid, self._registry.older(wanted.port))
        if held.kept is not None:
            self._channels.send(worker, held.kept, held.kept_fds)
        if not self._channels.send(worker, assign, descriptors):
            self._pool.want(wanted)
            return False
        self._connect(worker, wanted)
        self._expect_claim(worker, record)
        self._owner.do(self._registry.assigned(*wanted, worker.identity))
        self.watch.expect(wanted)
        return True

    def worker_lost(self, served: Incarnation, how: str) -> None:
        """Note that this worker of the port has ended, or that there was none."""
        self.watch.lost(served)
        self._confirmations.forget(served.port)
        self._channels.read_out(served)
        self._rings.worker_gone(served.port)
        if self._fd_store.memory_gone(served.port):
            self._owner.do(self._registry.goodbye(*served, "the VM took its memory away"))
        known = self._fd_store.position_known(served.port)
        now = time.monotonic()
        self._owner.do(self._registry.worker_lost(*served, how, now, position_known=known))

    def process_ended(self, identity: Identity) -> None:
        """Release everything that belonged to a worker."""
        self.publisher.disconnect(identity.pid)
        self._sampler.part(identity)
        self._expected_claims.forget(identity.pid)

    # Private to this file.

    def _on_heartbeat(self, served: Incarnation, heartbeat: Heartbeat) -> None:
        record = self.holders.record(served)
        if record is None or not self._registry.live(*served):
            return
        self.watch.heartbeat(record, heartbeat)
        if heartbeat.supervisor_epoch == self.publisher.log.epoch:
            self._confirmations.heard(served.port, heartbeat.sequence)

    def _expect_claim(self, worker: WorkerChannel, record: PortRecord) -> None:
        """Let the next supervisor know the worker of a port, and the port's settings."""
        assert worker.cell is not None
        if self._pool.processes.get(worker.identity) is not None:  # or its file would never be removed
            self._expected_claims.put(worker.pid, Claim(LAYOUT, worker.cell, record))

    def _meet(self, worker: WorkerChannel, proc: tuple[int, ...]) -> Cell:
        """Note a worker's first message."""
        assert worker.cell is not None
        self.cells.note(worker.cell)
        self._sampler.meet(worker.identity, proc)
        return worker.cell

    def _subscribed(self, pid: int) -> None:
        """Tell a newcomer with a port that it gets everything that is published from now on."""
        beat = self.publisher.last_beat
        for worker in [each for each in self.holders.all() if each.pid == pid]:
            if not self.publisher.quiet:
                self._channels.send(worker, Beat(beat.epoch, 0, beat.interval_ms, beat.pulse_ms))

    def _connect(self, worker: WorkerChannel, served: Incarnation) -> None:
        self.holders.connect(worker, served)
        self.guards.greet(worker)

    def _reconnect(self, worker: WorkerChannel, served: Incarnation) -> None:
        """Take the new channel of a worker for its old one, whose end may not have been noticed yet.

        What the worker said of itself before it had a VM stays in force.
        """
        known = self._expected_claims.get(worker.pid)
        worker.cell = worker.cell if known is None else known.cell
        old = self.holders.at(served.port)
        if old is not None:
            self._channels.drop(old)
        self._connect(worker, served)
        self._rings.returned(served)
        self._pool.returned(worker)
        log.info("port %d: its worker's channel is back", served.port)

"""Composition: the parts of one supervisor, the actions that the registry decides, the loop around it all.

Theory of operation
-------------------
Everything here runs in one thread, in one loop. Parts report what happens (``arrive``, ``hello``, ``lost``…)
by calling a method of ``Supervisor``; that asks the registry, whose actions are carried out one after the
other by ``_do``, in the order in which they were decided, also when carrying one out leads to more. A turn
ends with what is due: every part has ``tick`` and ``deadline``, so an idle switch wakes for its beat only.

If the runtime directory belonged to a supervisor that died, ``start`` takes its workers over first, which
``takeover`` describes.

A stop ends listeners first, then workers, then sockets; what does not end gets signals (``processes``).
"""

import os
import time
from collections import deque
from collections.abc import Iterator

from forwarder.acceptor import Pauses
from forwarder.channel import close_all
from forwarder.descriptor_limit import raise_descriptor_limit
from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.membership import BEAT_S, MembershipLog
from forwarder.names import TRANSPORT_KIND, Identity, Incarnation, Policy, PortId, PortRecord
from forwarder.rendezvous import DESCRIPTORS
from forwarder.wire import Claim, Goodbye, Heartbeat, Hello
from supervisor.attach.addresses import PortOptions
from supervisor.attach.listener_common import RLIMIT_WANTED, free_name, hung_up
from supervisor.attach.listeners import Listeners
from supervisor.base.logs import LEVELS, log
from supervisor.base.proc import start_time
from supervisor.base.runtime_dir import RuntimeDir
from supervisor.base.zmq_sockets import open_context
from supervisor.console.commands import Commands
from supervisor.console.sampler import Sampler
from supervisor.console.server import Console
from supervisor.console.stats import Switch, is_gateway
from supervisor.fleet.confirmations import Confirmations
from supervisor.fleet.descriptors import DescriptorServer, WorkerChannel
from supervisor.fleet.fd_store import FdStore
from supervisor.fleet.health import Health
from supervisor.fleet.join_rollout import JoinRollout
from supervisor.fleet.publisher import Publisher
from supervisor.fleet.takeover import CLAIM_S, TakeOver
from supervisor.fleet.worker_pool import WorkerPool
from supervisor.gateway.facts import facts
from supervisor.gateway.process import GatewayProcess
from supervisor.ports import registry
from supervisor.ports.registry import Registry
from supervisor.ports.view import PortView
from supervisor.run_options import RunOptions

STOP_S = 10.0
"""A process that is still there after a second of SIGKILL waits for a device; nobody waits for that."""


class Supervisor:
    """One supervisor, from construction (nothing is attached yet) to ``close``."""

    def __init__(self, options: RunOptions) -> None:
        """Take the runtime directory and open its sockets. Raises LocalError, and has left nothing then."""
        raise_descriptor_limit(RLIMIT_WANTED)
        self._options = options
        self._directory = RuntimeDir(options.runtime_dir)
        directory = self._directory.path
        self._registry = Registry(first_epoch=self._directory.first_epoch)
        self._fd_store = FdStore()
        self._sampler = Sampler()
        self._confirmations = Confirmations()
        self._health = Health(BEAT_S, self._sampler.published_at)
        self._loop = Loop(lambda: log.exception("a callback failed and is dropped"))
        self._pauses = Pauses(time.monotonic)
        self._workers: dict[int, WorkerChannel] = {}
        self._actions: deque[registry.Action] = deque()
        self._acting = False
        self._sender: Identity | None = None
        self._stop_at: float | None = None
        self._listeners = Listeners(self._loop, self._pauses, self)
        self._worker_pool = WorkerPool(self._loop, directory, self._give, self._worker_lost)
        known = facts(self._sampler, self.views)
        self._gateway = GatewayProcess(self._loop, self, directory, options.gateway or {}, known)
        self._takeover = TakeOver(self._registry, self._fd_store, self._worker_pool, self._listeners)
        self._context = open_context()
        membership = MembershipLog(self._directory.epoch)
        self._switch = Switch(
            membership.epoch, 0, time.monotonic(), Identity(os.getpid(), start_time(os.getpid()))
        )
        commands = Commands(self, self._registry, self._listeners, self._sampler, self._gateway)
        try:
            self._server = DescriptorServer(
                self._loop, self._pauses, self._directory.file(DESCRIPTORS), self, self._fd_store
            )
            self._publisher = Publisher(self._loop, self._context, directory, membership, self)
            self._console = Console(self._loop, self._context, directory, commands.handlers())
            self._join_rollout = JoinRollout(self._publisher, self._server, self._fd_store)
            parts = (self._registry, self._health, self._worker_pool, self._gateway, self._listeners)
            self._parts = (*parts, self._join_rollout, self._confirmations)
        except LocalError as error:
            self._context.destroy(linger=0)
            self._directory.close()
            raise LocalError(f"cannot open the sockets in {directory}: {error}") from None

    @property
    def runtime_dir(self) -> str:
        """The runtime directory as an absolute path."""
        return self._directory.path

    @property
    def name(self) -> str:
        """What the operator calls this switch."""
        return self._options.name

    def start(self) -> list[str]:
        """Take over what a predecessor left, then let VMs in. Returns the URLs. Raises LocalError."""
        if self._directory.predecessor is not None:
            self._take_over(self._directory.predecessor.pid)
        if self._stop_at is not None:
            return []
        if self._options.gateway is not None:
            self._gateway.begin(self._turn, lambda: self._stop_at is not None)
        return [self._listeners.open(attachment) for attachment in self._options.attachments]

    def run(self) -> bool:
        """Serve until ``stop``, and to its end. Returns whether everything ended in time."""
        while not self._finished():
            self._turn()
            if self._stop_at is not None and time.monotonic() > self._stop_at + STOP_S:
                log.error("%d workers did not end", len(self._worker_pool.processes))
                return False
        return True

    def stop(self) -> None:
        """Begin to end: no VM is let in any more, and every worker is told to end."""
        if self._stop_at is None:
            now = self._stop_at = time.monotonic()
            log.info("stopping %d ports", len(self._registry))
            self._listeners.close_all()
            self._gateway.stop()
            self._do(self._registry.shutdown())
            self._worker_pool.stop(now)

    def watch(self, fd: int) -> None:
        """Stop as soon as ``fd`` is readable (signals arrive that way)."""
        self._loop.watch(fd, lambda _: self.stop())

    def close(self) -> None:
        """Close everything; workers that still serve a port, and their paths, are left to the next one."""
        orphans = bool(self._workers)
        if not orphans:
            self._listeners.close_all()
        self._gateway.close()
        self._console.close()
        self._publisher.close()
        self._server.close()
        self._context.term()
        self._fd_store.close()
        self._loop.close()
        self._directory.close(keep_lock=orphans)

    def block(self, number: int) -> int:
        """Return the descriptor of the block of a port that there is."""
        held = self._fd_store.get(number)
        assert held is not None
        return held.block

    # What the operator's commands need.

    def summary(self) -> Switch:
        """Return the head of every answer."""
        return self._switch._replace(sequence=self._publisher.log.sequence)

    def views(self) -> Iterator[PortView]:
        """Return every port as it is shown."""
        return (self._gateway.view(self._health.view(port)) for port in self._registry)

    def detach(self, number: int) -> None:
        """Disconnect a VM. Raises LocalError if there is no such port."""
        port = self._registry.get(number)
        if port is not None:
            self._listeners.disconnect(port.record.id)
        self._do(self._registry.detach(number))

    def set_policy(self, number: int, policy: Policy) -> Future[bool]:
        """Set what applies to a port from now on; return whether it is in force, which takes a moment.

        Raises LocalError, and nothing has changed.
        """
        actions = self._registry.set_policy(number, policy)
        self._do(actions)
        if actions and self._registry.forwards(number):
            return self._confirmations.expect(number, self._publisher.log.sequence, time.monotonic())
        in_force: Future[bool] = Future()
        in_force.set_result(True)
        return in_force

    # Listeners report.

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        """Make a port of a VM's descriptor. Raises LocalError: this VM is to be refused."""
        now = time.monotonic()
        taken = {port.record.name for port in self._registry}
        record, actions = self._registry.attach(
            transport, now, free_name(settings.name, taken), settings.policy
        )
        try:
            self._fd_store.take(record.port, vm)
        except LocalError:
            self._do(self._registry.detach(record.port))
            raise
        log.info("port %d (%s): attached by %s", record.port, record.name, url)
        self._watch_block(record.id)
        self._gateway.joined(record)
        self._do(actions)
        return record

    def gone(self, port: PortId, reason: str) -> None:
        """Note that a VM has gone without its worker seeing it."""
        self._do(self._registry.vm_gone(*port, reason))

    def current(self, port: PortId) -> PortRecord | None:
        """Return a port as it is now; None if it has gone."""
        found = self._registry.get(port.port)
        return None if found is None or found.record.id != port else found.record

    def port_count(self) -> int:
        """Return how many ports there are."""
        return len(self._registry)

    # Workers report over their channels.

    def ready(self, worker: WorkerChannel, version: int) -> None:
        """Take a spare."""
        if not self._worker_pool.ready(worker, version):
            self._server.drop(worker)

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        """Take back a port from the worker of a dead supervisor, or a worker that had lost its channel."""
        if self._registry.serves(claim.record.port, claim.record.epoch, claim.identity):
            close_all(descriptors)
            self._reconnect(worker, claim.record.incarnation)
            return
        now = time.monotonic()
        adopted, actions = self._takeover.adopt(claim, descriptors, now)
        if adopted:
            served = claim.record.incarnation
            self._connect(worker, served)
            self._worker_pool.adopted(worker, served)
            self._watch_block(claim.record.id)
            self._gateway.joined(claim.record)
            self._health.expect(served, now)
        else:
            close_all(descriptors)
            self._worker_pool.refuse(claim.identity)
            self._server.drop(worker)
        self._do(actions)

    def lost(self, worker: WorkerChannel) -> None:
        """Note that a worker's channel has ended."""
        if worker.served is not None and self._workers.get(worker.served.port) is worker:
            del self._workers[worker.served.port]
        self._worker_pool.channel_lost(worker)

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        """Return the worker of that incarnation of a port, if it forwards."""
        return self._workers.get(port) if self._registry.live(port, epoch) else None

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        """Return the record of that incarnation of a port as it is now; None if it is over."""
        port = self._registry.get(incarnation.port)
        return None if port is None or port.record.incarnation != incarnation else port.record

    # Workers report over ZeroMQ.

    def hello(self, message: Hello) -> None:
        """Take a worker's word that it forwards."""
        now = time.monotonic()
        self._sender = message.identity
        self._do(self._registry.hello(message.port, message.epoch, message.identity, message.version))
        self._sender = None
        self._health.heard(message.port, message.epoch, now)

    def heartbeat(self, message: Heartbeat) -> None:
        """Take a sign of life, and what it says of the VM."""
        port, epoch = message.port, message.epoch
        self._do(self._registry.heartbeat(port, epoch))
        self._health.heard(port, epoch, time.monotonic())
        if self._registry.live(port, epoch):
            self._health.heartbeat(message)
            if message.supervisor_epoch == self._publisher.log.epoch:
                self._confirmations.heard(port, message.sequence)

    def goodbye(self, message: Goodbye) -> None:
        """Take a worker's word that its VM's link is over."""
        self._do(self._registry.goodbye(message.port, message.epoch, message.reason))

    # What follows is this file's own.

    def _turn(self) -> None:
        more = self._tick(time.monotonic())
        resume_at = self._pauses.deadline()
        deadlines = [part.deadline() for part in self._parts]
        deadline = min([*deadlines, *([] if resume_at is None else [resume_at])])
        self._loop.turn(0.0 if more or self._finished() else deadline - time.monotonic())

    def _tick(self, now: float) -> bool:
        """Do what is due and take what has arrived; whether there may be more of it."""
        reports = self._publisher.receive(now)
        commands = not self._publisher.quiet and self._console.receive()
        self._do(self._registry.tick(now))
        self._health.every(self._publisher.last_beat.pulse_ms / 1000)
        self._health.tick(now)
        self._confirmations.tick(now)
        rolling_out = self._join_rollout.tick(now)
        self._listeners.tick(now)
        self._pauses.tick(now)
        self._worker_pool.tick(now)
        self._gateway.tick(now)
        return rolling_out or reports or commands

    def _finished(self) -> bool:
        ended = self._gateway.ended and not len(self._worker_pool.processes) and not len(self._registry)
        return self._stop_at is not None and ended

    def _take_over(self, predecessor: int) -> None:
        self._takeover.begin(self.runtime_dir, time.monotonic())
        log.warning(
            "supervisor %d of this directory did not end cleanly and left %d workers; taking over",
            predecessor,
            len(self._takeover.left),
        )
        self._publisher.quiet = True
        while wait := self._takeover.wait(time.monotonic()):
            self._tick(time.monotonic())
            self._loop.turn(min(0.05, wait))
        for identity in self._takeover.close():
            log.warning("worker %d has not brought its port back in %g s and is ended", identity.pid, CLAIM_S)
            self._worker_pool.refuse(identity)
        self._publisher.speak(time.monotonic())
        self._gateway.took_over([port.record for port in self._registry])

    def _connect(self, worker: WorkerChannel, served: Incarnation) -> None:
        worker.served = served
        self._workers[served.port] = worker

    def _reconnect(self, worker: WorkerChannel, served: Incarnation) -> None:
        """Take the new channel of a worker for its old one, whose end may not have been noticed yet."""
        old = self._workers.get(served.port)
        if old is not None:
            self._server.drop(old)
        self._connect(worker, served)
        self._worker_pool.returned(worker)
        log.info("port %d: its worker's channel is back", served.port)

    def _watch_block(self, port: PortId) -> None:
        try:
            self._sampler.arrive(*port, self.block(port.port))
        except (OSError, ValueError) as error:
            log.error("port %d: its counters cannot be read: %s", port.port, error)

    def _give(self, worker: WorkerChannel, wanted: Incarnation) -> bool:
        """Hand a port to an idle worker; False if the worker has not got it."""
        record, held = self.record(wanted), self._fd_store.get(wanted.port)
        if record is None or held is None or not self._registry.pending(wanted.port):
            return False
        if hung_up(held.vm, TRANSPORT_KIND[record.transport]):
            self.gone(record.id, "its VM left before it had a worker")
            return False
        try:
            descriptors = self._fd_store.for_worker(wanted)
        except LocalError as error:
            self._worker_lost(wanted, str(error))
            return False
        if not self._server.send(worker, self._publisher.assignment(record, worker.pid), descriptors):
            self._worker_pool.want(wanted)
            return False
        assert worker.identity is not None
        self._connect(worker, wanted)
        self._do(self._registry.assigned(*wanted, worker.identity))
        self._health.expect(wanted, time.monotonic())
        return True

    def _worker_lost(self, served: Incarnation, how: str) -> None:
        self._health.lost(served)
        self._confirmations.forget(served.port)
        known = self._fd_store.position_known(served.port)
        self._do(self._registry.worker_lost(*served, how, time.monotonic(), position_known=known))

    def _do(self, actions: list[registry.Action]) -> None:
        """Carry out actions, and those that they lead to, in the order in which they were decided."""
        self._actions.extend(actions)
        if self._acting:
            return
        self._acting = True
        try:
            while self._actions:
                self._carry_out(self._actions.popleft())
        finally:
            self._acting = False

    def _carry_out(self, action: registry.Action) -> None:
        match action:
            case registry.AssignWorker(record):
                self._worker_pool.want(record.incarnation)
            case registry.Publish(change, record):
                self._join_rollout.publish(change, record, time.monotonic())
                log.debug("port %d (%s): published %s", record.port, record.name, change)
            case registry.EndWorker(port, epoch, identity):
                notified = self._publisher.drain(port, epoch)
                self._worker_pool.processes.end(identity, time.monotonic(), notified=notified)
            case registry.ReleaseVm(record, _):
                self._release(record)
            case registry.SayHelloAgain(port, epoch):
                self._publisher.say_hello_again(port, epoch)
            case registry.Refuse():
                if self._sender is not None:
                    self._worker_pool.refuse(self._sender)
            case registry.Log(level, text):
                log.log(LEVELS[level], text)

    def _release(self, record: PortRecord) -> None:
        number = record.port
        self._sampler.depart(number, of_gateway=is_gateway(record))
        self._health.forget(number)
        self._confirmations.forget(number)
        self._publisher.forget(number)
        self._workers.pop(number, None)
        self._fd_store.release(number)
        self._listeners.released(record.id)
        self._gateway.released(record)

"""Ports from arrival to release: what happens is reported here, and what the registry decides is done here.

Theory of operation
-------------------
Listeners, workers and the gateway report what happens (``arrive``, ``hello``, ``lost``…) by calling a method
of ``PortManager``. That asks the registry, which holds every port's record and decides; its actions are
carried out one after the other by ``_do``, in the order in which they were decided, also when carrying one
out leads to more. The other parts keep numbers of ports and ask for the record when they need it.

Each part has ``tick`` and ``deadline``; ``tick`` calls them in turn. A part that fails is logged and the
others go on: whatever is wrong with one part, VMs that talk must not notice.

Example: a VM connects to a listener. ``arrive``: the registry makes port 3 and asks for a worker; the pool
gives one at its next tick (``_give``), which gets the VM's descriptor over its channel and says Hello
(``hello``); the registry publishes the port, and the rollout sends its record to one worker after the other.

Runs in the thread of the loop, like all of the supervisor.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from forwarder.acceptor import Pauses
from forwarder.channel import close_all
from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.membership import BEAT_S, MembershipLog
from forwarder.names import TRANSPORT_KIND, Identity, Incarnation, Policy, PortId, PortRecord
from forwarder.rendezvous import DESCRIPTORS
from forwarder.wire import Claim, Goodbye, Guarded, Heartbeat, Hello
from supervisor.attach.addresses import PortOptions
from supervisor.attach.listener_common import free_name, hung_up
from supervisor.attach.listeners import Listeners
from supervisor.base.logs import LEVELS, log
from supervisor.base.runtime_dir import RuntimeDir
from supervisor.base.zmq_sockets import Context
from supervisor.console.sampler import Sampler
from supervisor.console.stats import is_gateway
from supervisor.fleet.confirmations import Confirmations
from supervisor.fleet.descriptors import DescriptorServer, WorkerChannel
from supervisor.fleet.fd_store import FdStore
from supervisor.fleet.guards import Guards
from supervisor.fleet.health import Health
from supervisor.fleet.join_rollout import JoinRollout
from supervisor.fleet.publisher import Publisher
from supervisor.fleet.takeover import TakeOver
from supervisor.fleet.worker_pool import WorkerPool
from supervisor.gateway.facts import facts
from supervisor.gateway.process import GatewayProcess
from supervisor.ports import actions
from supervisor.ports.registry import Registry
from supervisor.ports.view import PortView


class PortManager:
    """All ports of one switch and all parts that know them."""

    def __init__(
        self,
        loop: Loop,
        context: Context,
        directory: RuntimeDir,
        gateway_options: Mapping[str, object] | None,
    ) -> None:
        """Open the sockets of workers. Raises LocalError."""
        self.registry = Registry(first_epoch=directory.first_epoch)
        self.sampler = Sampler()
        self.pauses = Pauses(time.monotonic)
        self.listeners = Listeners(loop, self.pauses, self)
        known = facts(self.sampler, self.views)
        self._has_gateway = gateway_options is not None
        self.gateway = GatewayProcess(loop, self, directory.path, gateway_options or {}, known)
        self.worker_pool = WorkerPool(loop, directory.path, self._give, self._worker_lost)
        self._fd_store = FdStore()
        self._health = Health(BEAT_S, self.sampler.published_at)
        self._confirmations = Confirmations()
        self._workers: dict[int, WorkerChannel] = {}
        self._actions: deque[actions.Action] = deque()
        self._acting = False
        self._sender: Identity | None = None
        self.takeover = TakeOver(self.registry, self._fd_store, self.worker_pool, self.listeners)
        self._server = DescriptorServer(loop, self.pauses, directory.file(DESCRIPTORS), self, self._fd_store)
        try:
            membership = MembershipLog(directory.epoch)
            self.publisher = Publisher(loop, context, directory.path, membership, self)
        except LocalError:
            self._server.close()
            raise
        self._guards = Guards(self._server)
        self._join_rollout = JoinRollout(self.publisher, self._server, self._fd_store)
        self._steps: tuple[Callable[[float], object], ...] = (
            self.publisher.receive,
            lambda now: self._do(self.registry.tick(now)),
            self._tick_health,
            self._confirmations.tick,
            self._join_rollout.tick,
            self.listeners.tick,
            self.pauses.tick,
            self.worker_pool.tick,
            self.gateway.tick,
        )
        parts = (self.registry, self._health, self._confirmations, self._join_rollout, self.listeners)
        self._parts = (*parts, self.worker_pool, self.gateway)
        self.failed = False
        """Whether a part failed in the last ``tick``."""

    @property
    def orphans(self) -> bool:
        """Whether there are workers with a port, which would be left behind."""
        return bool(self._workers)

    @property
    def ended(self) -> bool:
        """Whether no port, no worker and no gateway is left."""
        return self.gateway.ended and not len(self.worker_pool.processes) and not len(self.registry)

    def tick(self, now: float) -> bool:
        """Do what is due and take what has arrived; whether there may be more of it."""
        more = self.failed = False
        for step in self._steps:
            try:
                more = bool(step(now)) or more
            except Exception:
                log.exception("a part of the supervisor failed; the others go on")
                self.failed = True
        return more

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        resume_at = self.pauses.deadline()
        return min([part.deadline() for part in self._parts] + ([] if resume_at is None else [resume_at]))

    def stop(self, now: float) -> None:
        """Begin to end: listeners first, then the gateway and the ports, then idle workers."""
        self.listeners.close_all()
        self.gateway.stop()
        self._do(self.registry.shutdown())
        self.worker_pool.stop(now)

    def close(self) -> None:
        """Close everything; workers that still serve a port, and their paths, are left to the next one."""
        if not self.orphans:
            self.listeners.close_all()
        self.gateway.close()
        self.publisher.close()
        self._server.close()
        self._fd_store.close()

    # What the operator's commands and the gateway need.

    def block(self, number: int) -> int:
        """Return the descriptor of the block of a port that there is."""
        held = self._fd_store.get(number)
        assert held is not None
        return held.block

    def own(self, owners: Mapping[str, int]) -> None:
        """Have guards know that these addresses belong to these ports."""
        self._guards.own(owners)

    def views(self) -> Iterator[PortView]:
        """Return every port as it is shown."""
        return (self.gateway.view(self._health.view(port)) for port in self.registry)

    def detach(self, number: int) -> None:
        """Disconnect a VM. Raises LocalError if there is no such port."""
        port = self.registry.get(number)
        if port is not None:
            self.listeners.disconnect(port.record.id)
        self._do(self.registry.detach(number))

    def set_policy(self, number: int, policy: Policy) -> Future[bool]:
        """Set what applies to a port from now on; return whether it is in force, which takes a moment.

        Raises LocalError, and nothing has changed.
        """
        decided = self.registry.set_policy(number, self._guarded(policy))
        self._do(decided)
        if decided and self.registry.forwards(number):
            return self._confirmations.expect(number, self.publisher.log.sequence, time.monotonic())
        in_force: Future[bool] = Future()
        in_force.set_result(True)
        return in_force

    # Listeners report.

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        """Make a port of a VM's descriptor. Raises LocalError: this VM is to be refused."""
        now = time.monotonic()
        taken = {port.record.name for port in self.registry}
        policy = self._guarded(settings.policy)
        record, decided = self.registry.attach(transport, now, free_name(settings.name, taken), policy)
        try:
            self._fd_store.take(record.port, vm)
        except LocalError:
            self._do(self.registry.detach(record.port))
            raise
        log.info("port %d (%s): attached by %s", record.port, record.name, url)
        self._watch_block(record.id)
        self.gateway.joined(record)
        self._do(decided)
        return record

    def gone(self, port: PortId, reason: str) -> None:
        """Note that a VM has gone without its worker seeing it."""
        self._do(self.registry.vm_gone(*port, reason))

    def current(self, port: PortId) -> PortRecord | None:
        """Return a port as it is now; None if it has gone."""
        found = self.registry.get(port.port)
        return None if found is None or found.record.id != port else found.record

    def port_count(self) -> int:
        """Return how many ports there are."""
        return len(self.registry)

    # Workers report over their channels.

    def ready(self, worker: WorkerChannel, version: int) -> None:
        """Take a spare."""
        if not self.worker_pool.ready(worker, version):
            self._server.drop(worker)

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        """Take back a port from the worker of a dead supervisor, or a worker that had lost its channel."""
        if self.registry.serves(claim.record.port, claim.record.epoch, claim.identity):
            close_all(descriptors)
            self._reconnect(worker, claim.record.incarnation)
            return
        now = time.monotonic()
        adopted, decided = self.takeover.adopt(claim, descriptors, now)
        if adopted:
            served = claim.record.incarnation
            self._connect(worker, served)
            self.worker_pool.adopted(worker, served)
            self._watch_block(claim.record.id)
            self.gateway.joined(claim.record)
            self._health.expect(served, now)
        else:
            close_all(descriptors)
            self.worker_pool.refuse(claim.identity)
            self._server.drop(worker)
        self._do(decided)

    def lost(self, worker: WorkerChannel) -> None:
        """Note that a worker's channel has ended."""
        if worker.served is not None and self._workers.get(worker.served.port) is worker:
            del self._workers[worker.served.port]
        self.worker_pool.channel_lost(worker)

    def guarded(self, served: Incarnation, message: Guarded) -> None:
        """Say what a guard has refused for the first time."""
        record = self.record(served)
        if record is not None:
            self._guards.report(record, message)

    def holder(self, port: int, epoch: int) -> WorkerChannel | None:
        """Return the worker of that incarnation of a port, if it forwards."""
        return self._workers.get(port) if self.registry.live(port, epoch) else None

    def record(self, incarnation: Incarnation) -> PortRecord | None:
        """Return the record of that incarnation of a port as it is now; None if it is over."""
        port = self.registry.get(incarnation.port)
        return None if port is None or port.record.incarnation != incarnation else port.record

    # Workers report over ZeroMQ.

    def hello(self, message: Hello) -> None:
        """Take a worker's word that it forwards."""
        now = time.monotonic()
        self._sender = message.identity
        self._do(self.registry.hello(message.port, message.epoch, message.identity, message.version))
        self._sender = None
        self._health.heard(message.port, message.epoch, now)

    def heartbeat(self, message: Heartbeat) -> None:
        """Take a sign of life, and what it says of the VM."""
        port, epoch = message.port, message.epoch
        self._do(self.registry.heartbeat(port, epoch))
        self._health.heard(port, epoch, time.monotonic())
        record = self.record(Incarnation(port, epoch))
        if record is not None and self.registry.live(port, epoch):
            self._health.heartbeat(message, record)
            if message.supervisor_epoch == self.publisher.log.epoch:
                self._confirmations.heard(port, message.sequence)

    def goodbye(self, message: Goodbye) -> None:
        """Take a worker's word that its VM's link is over."""
        self._do(self.registry.goodbye(message.port, message.epoch, message.reason))

    # What follows is this file's own.

    def _guarded(self, policy: Policy) -> Policy:
        """Decide whether a port is guarded, where nothing was said of it."""
        return policy if policy.guard is not None else policy._replace(guard=self._has_gateway)

    def _tick_health(self, now: float) -> None:
        self._health.every(self.publisher.last_beat.pulse_ms / 1000)
        self._health.tick(now)

    def _connect(self, worker: WorkerChannel, served: Incarnation) -> None:
        worker.served = served
        self._workers[served.port] = worker
        self._guards.greet(worker)

    def _reconnect(self, worker: WorkerChannel, served: Incarnation) -> None:
        """Take the new channel of a worker for its old one, whose end may not have been noticed yet."""
        old = self._workers.get(served.port)
        if old is not None:
            self._server.drop(old)
        self._connect(worker, served)
        self.worker_pool.returned(worker)
        log.info("port %d: its worker's channel is back", served.port)

    def _watch_block(self, port: PortId) -> None:
        try:
            self.sampler.arrive(*port, self.block(port.port))
        except (OSError, ValueError) as error:
            log.error("port %d: its counters cannot be read: %s", port.port, error)

    def _give(self, worker: WorkerChannel, wanted: Incarnation) -> bool:
        """Hand a port to an idle worker; False if the worker has not got it."""
        record, held = self.record(wanted), self._fd_store.get(wanted.port)
        if record is None or held is None or not self.registry.pending(wanted.port):
            return False
        if hung_up(held.vm, TRANSPORT_KIND[record.transport]):
            self.gone(record.id, "its VM left before it had a worker")
            return False
        try:
            descriptors = self._fd_store.for_worker(wanted)
        except LocalError as error:
            self._worker_lost(wanted, str(error))
            return False
        if not self._server.assign(worker, self.publisher.assignment(record, worker.pid), descriptors):
            self.worker_pool.want(wanted)
            return False
        assert worker.identity is not None
        self._connect(worker, wanted)
        self._do(self.registry.assigned(*wanted, worker.identity))
        self._health.expect(wanted, time.monotonic())
        return True

    def _worker_lost(self, served: Incarnation, how: str) -> None:
        self._health.lost(served)
        self._confirmations.forget(served.port)
        self._server.read_out(served)
        if self._fd_store.memory_gone(served.port):
            self._do(self.registry.goodbye(*served, "the VM took its memory away"))
        known = self._fd_store.position_known(served.port)
        self._do(self.registry.worker_lost(*served, how, time.monotonic(), position_known=known))

    def _do(self, decided: list[actions.Action]) -> None:
        """Carry out actions, and those that they lead to, in the order in which they were decided."""
        self._actions.extend(decided)
        if self._acting:
            return
        self._acting = True
        try:
            while self._actions:
                self._carry_out(self._actions.popleft())
        finally:
            self._acting = False

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.AssignWorker(record):
                self.worker_pool.want(record.incarnation)
            case actions.Publish(change, record):
                self._join_rollout.publish(change, record, time.monotonic())
                log.debug("port %d (%s): published %s", record.port, record.name, change)
            case actions.EndWorker(port, epoch, identity):
                notified = self.publisher.drain(port, epoch)
                self.worker_pool.processes.end(identity, time.monotonic(), notified=notified)
            case actions.ReleaseVm(record, _):
                self._release(record)
            case actions.SayHelloAgain(port, epoch):
                self.publisher.say_hello_again(port, epoch)
            case actions.Refuse():
                if self._sender is not None:
                    self.worker_pool.refuse(self._sender)
            case actions.Log(level, text):
                log.log(LEVELS[level], text)

    def _release(self, record: PortRecord) -> None:
        number = record.port
        self.sampler.depart(number, of_gateway=is_gateway(record))
        self._health.forget(number)
        self._confirmations.forget(number)
        self.publisher.forget(number)
        self._workers.pop(number, None)
        self._fd_store.release(number)
        self.listeners.released(record.id)
        self.gateway.released(record)

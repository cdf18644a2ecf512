"""The worker pool: keeps spare workers, gives them to waiting ports, and reports their ends.

The pool applies its policy to processes and channels. A worker goes starting → idle → with a port → ended; it
serves at most one port, ever. The pool does not decide which port gets a worker, or what a loss means:
``PoolOwner.give`` hands a port to an idle worker, ``worker_lost`` reports. The pool keeps numbers of ports
and no records: settings may change while a port waits, so the registry is asked when a worker is there.

A spare whose channel has ended can get no port and is ended. A worker with a port goes on forwarding and is
dialled again (``dialer``), not more often than every ``DIAL_S``; it has ``RETURN_S`` to answer. A clean exit
(status 0) is preceded by a Goodbye, which may arrive after the exit is noticed. ``GOODBYE_S`` gives it time
to arrive; otherwise the registry would take a clean end for a crash.

All workers of one template have the same layout of memory, which a guest that crashes its worker may be
guessing. So after a crash (SIGSEGV and the like) template and spares are replaced, and the port gets a worker
with another layout.

Example: eight VMs attach at once and two spares wait. Ports 1 and 2 get them; 3 to 8 wait, and eight workers
start (``pool_policy``). Meanwhile the operator pins an address to port 7. When the seventh worker is ready,
``give`` asks the registry for port 7 as it is then, pin included.
"""

import time
from collections import deque
from typing import NamedTuple, Protocol

from forwarder.channel import Channel
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Identity, Incarnation
from supervisor.base.logs import Throttle
from supervisor.pool.channels import BURST, RATE, WorkerChannel
from supervisor.pool.dialer import Dialer
from supervisor.pool.pool_policy import READY_S, PoolPolicy
from supervisor.pool.processes import Exit, Processes
from supervisor.pool.template import Template
from supervisor.pool.template_process import TemplateProcess

GOODBYE_S = 0.05
RETURN_S = 2.0
"""A worker begins to listen as soon as it notices that its channel has ended."""
DIAL_S = BURST / RATE
"""The shortest time between two channels of one worker: each comes with a full allowance of messages."""


class EndedWorker(NamedTuple):
    """An ended worker, to be reported when its Goodbye has had time to arrive."""

    due: float
    served: Incarnation
    how: str


class PoolOwner(Protocol):
    """The part that gives ports to workers."""

    def give(self, worker: WorkerChannel, wanted: Incarnation) -> bool:
        """Hand a port over; return True if the worker has it now.

        If it fails because of the worker, the port waits for another worker again.
        """

    def worker_lost(self, served: Incarnation, how: str) -> None:
        """Note that this worker of the port has ended, or that there was none."""

    def connected(self, identity: Identity, channel: Channel) -> None:
        """Take a channel to a process."""

    def process_ended(self, identity: Identity) -> None:
        """Note that a worker process has ended, with or without a port."""


class WorkerPool:
    """All workers."""

    def __init__(
        self, loop: Loop, runtime_dir: str, owner: PoolOwner, template: TemplateProcess | None = None
    ) -> None:
        """``template``: its first process, if it has been started already."""
        self.processes = Processes(loop, runtime_dir, self._ended)
        self.dialer = Dialer(runtime_dir, owner.connected)
        self._template = Template(loop, runtime_dir, self, template)
        self._owner = owner
        self._throttle = Throttle()
        self._policy = PoolPolicy()
        self._starting: dict[Identity, float] = {}
        self._idle: deque[WorkerChannel] = deque()
        self._waiting: deque[Incarnation] = deque()
        self._serving: dict[Identity, Incarnation] = {}
        self._disconnected: dict[Identity, float] = {}
        """Workers with a port and without a channel, and when to give them up."""
        self._dialled_at: dict[Identity, float] = {}
        """When workers that had lost their channel were dialled."""
        self._ended_workers: deque[EndedWorker] = deque()
        self._outdated: set[Identity] = set()
        """Starting workers with the memory layout of one that has crashed."""
        self._stopping = False

    def want(self, wanted: Incarnation) -> None:
        """Get a worker for a port, at the next ``tick``."""
        self._waiting.append(wanted)

    def adopted(self, worker: WorkerChannel, served: Incarnation) -> None:
        """Note that a worker has brought its port; its process is in ``processes`` already."""
        self._serving[worker.identity] = served

    def returned(self, worker: WorkerChannel) -> None:
        """Note that a worker whose channel had ended has a new one."""
        self._disconnected.pop(worker.identity, None)

    def ready(self, worker: WorkerChannel, why_not: str) -> bool:
        """Take a spare; return False if it is not ours, or if ``why_not`` is given."""
        if self._starting.pop(worker.identity, None) is None:
            return False
        if why_not:
            self._throttle.warning("ready", f"worker {worker.pid} is not used: {why_not}")
            self._policy.failed(time.monotonic())
            self.processes.end(worker.identity, time.monotonic(), notified=False)
            return False
        self._policy.ready()
        if worker.identity in self._outdated:
            self._drop_spare(worker.identity)
            return False
        self._idle.append(worker)
        self.serve(time.monotonic())
        return True

    def channel_lost(self, worker: WorkerChannel) -> None:
        """Note that a worker's channel has ended."""
        now = time.monotonic()
        if worker in self._idle:
            self._idle.remove(worker)
            self._policy.lost(now)
        if worker.identity in self._serving:
            due = max(now, self._dialled_at.get(worker.identity, now - DIAL_S) + DIAL_S)
            self._dialled_at[worker.identity] = due
            self._disconnected[worker.identity] = due + RETURN_S
            self.dialer.call(worker.identity, due)
        else:
            self.processes.end(worker.identity, now)

    def serve(self, now: float) -> None:
        """Give ports to idle workers, and start as many as the policy says."""
        while self._waiting and self._idle:
            worker = self._idle[0]
            wanted = self._waiting.popleft()
            if self._owner.give(worker, wanted):
                if worker in self._idle:  # or its channel has ended meanwhile
                    self._idle.remove(worker)
                    self._policy.taken(now)
                self._serving[worker.identity] = wanted
        if self._stopping:
            return
        for _ in range(self._policy.to_start(len(self._waiting), now)):
            self._policy.started()
            try:
                self._template.fork()
            except LocalError as error:
                self._start_failed(str(error), now)
                return

    def tick(self, now: float) -> None:
        """Do what is due."""
        for identity, deadline in list(self._starting.items()):
            if deadline <= now:
                self._starting[identity] = float("inf")
                self.processes.end(identity, now, notified=False)
        for identity in [each for each, deadline in self._disconnected.items() if deadline <= now]:
            del self._disconnected[identity]
            self.dialer.forget(identity)
            self.processes.end(identity, now, notified=False)
        while self._ended_workers and self._ended_workers[0].due <= now:
            ended = self._ended_workers.popleft()
            self._owner.worker_lost(ended.served, ended.how)
        self.processes.tick(now)
        self._template.tick(now)
        self.dialer.tick(now)
        self.serve(now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min(
            self._policy.deadline(len(self._waiting)) if not self._stopping else float("inf"),
            self.processes.deadline(),
            self._template.deadline(),
            self.dialer.deadline(),
            min(self._starting.values(), default=float("inf")),
            min(self._disconnected.values(), default=float("inf")),
            self._ended_workers[0].due if self._ended_workers else float("inf"),
        )

    def refuse(self, identity: Identity) -> None:
        """End a process that must not serve a port."""
        try:
            self.processes.adopt(identity)
        except LocalError:
            return  # it has ended already
        self.processes.end(identity, time.monotonic(), notified=False)

    def stop(self, now: float) -> None:
        """End workers without a port, and start no more."""
        self._stopping = True
        self._waiting.clear()
        self._template.close()
        spares = [worker.identity for worker in self._idle]
        for identity in [*self._starting, *spares]:
            self.processes.end(identity, now, notified=False)

    def close(self) -> None:
        """End workers that have no port at once, and wait for that: they could still make a socket."""
        self._template.close()
        self.processes.clear_away([each for each in self.processes if each not in self._serving])

    # What the template says.

    def forked(self, pid: int, channel: Channel) -> None:
        """Take a worker that starts."""
        now = time.monotonic()
        try:
            identity = self.processes.take(pid).identity
        except LocalError as error:
            channel.close()
            self._start_failed(str(error), now)
            return
        self._starting[identity] = now + READY_S
        self._owner.connected(identity, channel)

    def not_forked(self, how: str) -> None:
        """Note that a worker could not be had."""
        self._start_failed(how, time.monotonic())

    def template_ended(self) -> None:
        """End what it has forked and not told of."""
        self.processes.end_unknown()

    # What follows is this file's own.

    def _ended(self, identity: Identity, end: Exit) -> None:
        now, how = time.monotonic(), end.how
        self._owner.process_ended(identity)
        self._outdated.discard(identity)
        if self._starting.pop(identity, None) is not None:
            if not self._stopping:
                self._start_failed(f"worker {identity.pid} did not get ready: {how}", now)
            return
        for worker in [each for each in self._idle if each.identity == identity]:
            self._idle.remove(worker)
            self._policy.lost(now)
        self._disconnected.pop(identity, None)
        self._dialled_at.pop(identity, None)
        self.dialer.forget(identity)
        served = self._serving.pop(identity, None)
        if served is not None:
            how = f"process {identity.pid}: {how}"
            self._ended_workers.append(EndedWorker(now + GOODBYE_S if end.clean else now, served, how))
            self._ended_workers = deque(sorted(self._ended_workers))
            if end.crashed and not self._stopping:
                self._change_layout()

    def _change_layout(self) -> None:
        """Replace the template and the workers without a port."""
        self._template.renew()
        self._outdated.update(self._starting)
        while self._idle:
            self._drop_spare(self._idle.popleft().identity)

    def _drop_spare(self, identity: Identity) -> None:
        self._policy.dropped()
        self.processes.end(identity, time.monotonic(), notified=False)

    def _start_failed(self, how: str, now: float) -> None:
        self._policy.failed(now)
        self._throttle.warning("start", how)
        if self._waiting:
            self._owner.worker_lost(self._waiting.popleft(), how)

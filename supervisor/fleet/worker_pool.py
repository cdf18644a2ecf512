"""Workers from the supervisor's side: warm spares, the ports that wait for one, and everybody's end.

Here the pool's policy meets processes and channels. A worker goes starting → idle → with a port → ended; it
serves one port at most, and never another one. Which port gets one, and what a lost one means, is not decided
here: ``give`` hands a port to an idle worker, ``lost`` reports.

A worker whose channel has ended can get no rings. A spare is made to end; one that has a port forwards, and
tries to come back at once, for which it has ``RETURN_S``. One that ends with status 0 has said why in a
Goodbye, which takes another way than the end of its process; ``GOODBYE_S`` gives it time to arrive, or the
registry would take a clean end for a crash.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import PROTOCOL_VERSION, Identity, PortRecord
from supervisor.base.logs import Throttle, log
from supervisor.fleet.descriptors import Peer
from supervisor.fleet.pool_policy import READY_S, Pool
from supervisor.fleet.processes import Processes

GOODBYE_S = 0.05
RETURN_S = 2.0
"""A worker that has lost its channel tries to get another one four times a second."""


class Obituary(NamedTuple):
    """A worker that has ended, to be reported when its Goodbye has had time to arrive."""

    due: float
    record: PortRecord
    how: str


class Workforce:
    """All workers."""

    def __init__(
        self,
        loop: Loop,
        runtime_dir: str,
        give: Callable[[Peer, PortRecord], bool],
        lost: Callable[[PortRecord, str], None],
    ) -> None:
        """Take the two answers to what happens here.

        ``give``: hand a port over; True if the worker has it now. Where it is the worker that cannot take it,
        the port is wanted again by then. ``lost``: the worker of that record has ended, or none could be had.
        """
        self.processes = Processes(loop, runtime_dir, self._ended)
        self._give = give
        self._lost = lost
        self._throttle = Throttle()
        self._pool = Pool()
        self._starting: dict[Identity, float] = {}
        self._idle: deque[Peer] = deque()
        self._waiting: deque[PortRecord] = deque()
        self._serving: dict[Identity, PortRecord] = {}
        self._astray: dict[Identity, float] = {}
        """Who serves a port and has lost its channel, and when that is the end of it."""
        self._obituaries: deque[Obituary] = deque()
        self._stopping = False

    def want(self, record: PortRecord) -> None:
        """Get a worker for a port, at the next ``tick``."""
        self._waiting.append(record)

    def adopted(self, peer: Peer, record: PortRecord) -> None:
        """Note that a worker has brought its port. Its process is in ``processes`` by now."""
        assert peer.identity is not None
        self._serving[peer.identity] = record

    def returned(self, peer: Peer) -> None:
        """Note that a worker whose channel had ended has another one."""
        assert peer.identity is not None
        self._astray.pop(peer.identity, None)

    def ready(self, peer: Peer, version: int) -> bool:
        """Take a spare; False if it is none of ours, or of another version."""
        assert peer.identity is not None
        if self._starting.pop(peer.identity, None) is None:
            return False
        if version != PROTOCOL_VERSION:
            log.error("worker %d speaks protocol %d, not %d", peer.pid, version, PROTOCOL_VERSION)
            self._pool.failed(time.monotonic())
            self.processes.end(peer.identity, time.monotonic(), told=False)
            return False
        self._pool.ready()
        self._idle.append(peer)
        self.serve(time.monotonic())
        return True

    def channel_lost(self, peer: Peer) -> None:
        """Note that a worker's channel has ended."""
        now = time.monotonic()
        if peer in self._idle:
            self._idle.remove(peer)
            self._pool.lost(now)
        if peer.identity in self._serving:
            self._astray[peer.identity] = now + RETURN_S
        elif peer.identity is not None:
            self.processes.end(peer.identity, now)

    def serve(self, now: float) -> None:
        """Give ports to idle workers, and start as many as there should be."""
        while self._waiting and self._idle:
            peer = self._idle[0]
            record = self._waiting.popleft()
            if self._give(peer, record):
                assert peer.identity is not None
                self._idle.popleft()
                self._pool.taken(now)
                self._serving[peer.identity] = record
        if self._stopping:
            return
        for _ in range(self._pool.to_start(len(self._waiting), now)):
            self._pool.started()
            try:
                process = self.processes.start()
            except LocalError as error:
                self._start_failed(str(error), now)
                return
            self._starting[process.identity] = now + READY_S

    def tick(self, now: float) -> None:
        """Do what is due."""
        for identity, deadline in list(self._starting.items()):
            if deadline <= now:
                self._starting[identity] = float("inf")
                self.processes.end(identity, now, told=False)
        for identity in [each for each, deadline in self._astray.items() if deadline <= now]:
            del self._astray[identity]
            self.processes.end(identity, now, told=False)
        while self._obituaries and self._obituaries[0].due <= now:
            obituary = self._obituaries.popleft()
            self._lost(obituary.record, obituary.how)
        self.processes.tick(now)
        self.serve(now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min(
            self._pool.deadline(len(self._waiting)) if not self._stopping else float("inf"),
            self.processes.deadline(),
            min(self._starting.values(), default=float("inf")),
            min(self._astray.values(), default=float("inf")),
            self._obituaries[0].due if self._obituaries else float("inf"),
        )

    def refuse(self, identity: Identity) -> None:
        """Make a process end that must not serve anybody."""
        try:
            self.processes.adopt(identity)
        except LocalError:
            return  # it has ended already
        self.processes.end(identity, time.monotonic(), told=False)

    def stop(self, now: float) -> None:
        """End whoever has no port, and start nobody any more."""
        self._stopping = True
        self._waiting.clear()
        spares = [peer.identity for peer in self._idle if peer.identity is not None]
        for identity in [*self._starting, *spares]:
            self.processes.end(identity, now, told=False)

    def _ended(self, identity: Identity, clean: bool, how: str) -> None:
        now = time.monotonic()
        if self._starting.pop(identity, None) is not None:
            if not self._stopping:
                self._start_failed(f"worker {identity.pid} did not get ready: {how}", now)
            return
        for peer in [each for each in self._idle if each.identity == identity]:
            self._idle.remove(peer)
            self._pool.lost(now)
        self._astray.pop(identity, None)
        record = self._serving.pop(identity, None)
        if record is not None:
            how = f"process {identity.pid}: {how}"
            self._obituaries.append(Obituary(now + GOODBYE_S if clean else now, record, how))
            self._obituaries = deque(sorted(self._obituaries))

    def _start_failed(self, how: str, now: float) -> None:
        self._pool.failed(now)
        self._throttle.warning("start", how)
        if self._waiting:
            self._lost(self._waiting.popleft(), how)

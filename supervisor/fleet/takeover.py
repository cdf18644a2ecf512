"""Take over the workers of a dead supervisor: they bring their ports back.

Theory of operation
-------------------
The workers go on forwarding with their last view. An incomplete new view would harm them: they would drop
every port that is not in it. So until the window closes, membership is *quiet* (``publisher.Publisher``):
claims fill the table, but no beats, updates or snapshots go out. For the workers the supervisor has just not
come back yet. The window closes when every survivor has claimed or ended, or after ``CLAIM_S``; then the
whole table is published at once.

Until then no VM is let in and no command is answered. A listener must not bind over a socket that a VM is
connected to, and all workers sleep on one flood doorbell, which the first of them brings.

The supervisor dials each survivor (``dialer``) until it answers with a Claim. A claim counts only while the
window is open, and only from a worker that was found at its beginning. It is believed as far as it agrees
with what the dead supervisor has left (``expected_claims``). A worker without an answer after
``CLAIM_S`` is stopped or stuck, and its descriptors are out of reach. It is ended, since two switches must
not share a VM. A refused worker has its TAP device, or its VM's datagram socket, until it has ended, and
listeners may be opened only then: ``await_end`` waits for it, for ``GONE_S`` at most.

A port without a worker at that moment (it waits for its next one) is lost with the supervisor, since no other
process has its descriptor. Its VM sees the end of its link and connects again.
"""

import os
import time
from collections.abc import Callable

from forwarder.errors import BulkheadError, PeerError
from forwarder.messages import Claim
from forwarder.names import Identity
from supervisor.attach.listeners import Listeners
from supervisor.base.cells import CellPolicy
from supervisor.base.logs import log
from supervisor.base.proc import exists, parent_of
from supervisor.fleet import claimed_fds, expected_claims
from supervisor.pool import processes
from supervisor.pool.worker_pool import WorkerPool
from supervisor.ports.actions import Action
from supervisor.ports.registry import Registry
from supervisor.rings.fd_store import FdStore

CLAIM_S = 3.0
GONE_S = processes.KILL_S + 1.0
"""A stopped worker reacts to SIGKILL alone, and then is gone in milliseconds."""
TURN_S = 0.05


class TakeOver:
    """The window, the workers that have still to claim, and their claims."""

    def __init__(
        self,
        registry: Registry,
        fd_store: FdStore,
        worker_pool: WorkerPool,
        listeners: Listeners,
        cells: CellPolicy,
    ) -> None:
        self.left: set[Identity] = set()
        """The workers of the dead supervisor that have neither claimed nor ended."""
        self.adopted = 0
        self._refused: set[Identity] = set()
        """The workers that must not serve a port and are ended."""
        self._expected: dict[Identity, Claim] = {}
        """What the dead supervisor knew of its workers."""
        self._registry = registry
        self._fd_store = fd_store
        self._worker_pool = worker_pool
        self._listeners = listeners
        self._cells = cells
        self._deadline = 0.0

    def begin(self, runtime_dir: str, now: float) -> None:
        """Find the survivors and open the window; ``now`` is in monotonic seconds."""
        found = processes.survivors(runtime_dir)
        self.left = {each for each in found if parent_of(each.pid) != os.getpid()}  # not our own template
        self._expected = expected_claims.read(runtime_dir, self.left)
        for identity in self.left:
            self._worker_pool.dialer.call(identity, now)
        self._deadline = now + CLAIM_S

    def close(self, runtime_dir: str) -> None:
        """Close the window: end workers that have not claimed, and remove the files of dead ones."""
        for identity in self.left:
            log.warning("worker %d has not brought its port back in %g s and is ended", identity.pid, CLAIM_S)
            self._worker_pool.dialer.forget(identity)
            self._worker_pool.refuse(identity)
        self._refused |= self.left
        self.left.clear()
        processes.remove_stale_files(runtime_dir)

    def wait(self, now: float) -> float:
        """Return how long to wait for claims, in seconds; 0 if the window is over."""
        self.left = {each for each in self.left if exists(each)}
        return max(0.0, self._deadline - now) if self.left else 0.0

    def await_end(self, turn: Callable[[float], None]) -> None:
        """Wait until the refused workers have ended; ``turn`` runs the loop for at most that long."""
        deadline = time.monotonic() + GONE_S
        while left := [each for each in self._refused if self._worker_pool.processes.get(each) is not None]:
            if time.monotonic() >= deadline:
                log.warning("%d workers of the supervisor before do not end", len(left))
                return
            turn(TURN_S)

    def adopt(
        self, claim: Claim, identity: Identity, descriptors: tuple[int, ...], now: float
    ) -> tuple[Claim | None, list[Action]]:
        """Take over a port with its worker and descriptors.

        Returns what is true of the claim; None if the worker is to end instead.
        """
        record = claim.record
        try:
            if identity not in self.left:
                raise PeerError(f"process {identity.pid} is not an expected worker")
            self.left.discard(identity)
            claim = expected_claims.believed(claim, identity, self._expected)
            record = claim.record
            if why_not := self._cells.refuses(claim.cell):
                raise PeerError(why_not)
            claimed_fds.check(record, descriptors, self._fd_store.flood_doorbell)
            self._worker_pool.processes.adopt(identity)
        except BulkheadError as error:
            log.warning("port %d (%s): not taken over, %s", record.port, record.name, error)
            self._refused.add(identity)
            return None, []
        actions = self._registry.adopt(record, identity, claim.layout, now)
        if not self._registry.serves(record.port, record.epoch, identity):
            self._refused.add(identity)
            return None, actions
        self.adopted += 1
        self._fd_store.adopt(record, descriptors)
        self._listeners.adopt(record, descriptors[0])
        return claim, actions

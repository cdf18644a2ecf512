"""Join rollout: send a newcomer's change to one worker after the other; publish all other changes.

Theory of operation. ZeroMQ wakes all workers at once, two threads of each, and each worker then asks for the
newcomer's flood ring. If there are more workers than cores, the newcomer and the VM that it talks to wait in
this crowd. So a change with a new flood ring goes to each worker over its channel, together with the ring
(without it if the two may not talk): one wake-up instead of four. A worker handles the change while the next
one gets it, so there is no crowd. The oldest worker gets it first (the gateway's, if there is a gateway),
since newcomers talk to that one. The newcomer gets it last: when it has its own change, all have it.

Example: ports 1, 2 and 3 are live, port 4 says Hello. Its ``join`` goes over the channels to 1, 2, 3, then 4,
one in each turn of the loop; a second later it is published, too, with all others of that second.

The change is also published later: for workers without a channel, and to keep the published sequence
complete, by which workers notice a loss. That is not urgent, so newcomers of one ``LINGER_S`` share the
wake-up. The order is kept. Any other change is published at once, after the waiting ones; it waits only for a
rollout that is under way. So do beats, whose sequence would otherwise be ahead of the published changes.

A newcomer that has not asked for the table yet waits for a published message, so its own change is published
at once then.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from forwarder.errors import LocalError
from forwarder.messages import Update
from forwarder.names import Incarnation, PortRecord, may_talk
from supervisor.fleet.channels import WorkerChannel, WorkerChannels
from supervisor.fleet.fd_store import FdStore
from supervisor.fleet.publisher import Publisher

AT_ONCE = 16
"""Workers in one turn, so that a newcomer does not keep the loop from the next one."""
LINGER_S = 1.0

RecordOf = Callable[[Incarnation], PortRecord | None]
"""Returns the present record of a served port."""


class JoinRollout:
    """The changes that have not been published yet."""

    def __init__(
        self, publisher: Publisher, channels: WorkerChannels, fd_store: FdStore, record_of: RecordOf
    ) -> None:
        self._publisher = publisher
        self._channels = channels
        self._fd_store = fd_store
        self._record_of = record_of
        self._waiting: deque[Update] = deque()
        """Changes in their order; the first one is being rolled out."""
        self._remaining: deque[WorkerChannel] = deque()
        """The workers that the first change has still to be sent to."""
        self._sent_to_all: deque[Update] = deque()
        """Changes that every worker has and that are still to be published."""
        self._due = float("inf")
        self._rolled_out: dict[int, int] = {}
        """The epoch under which each port was rolled out."""

    def publish(self, change: str, record: PortRecord, now: float) -> None:
        """Send a change to every worker."""
        self._waiting.append(self._publisher.log.update(change, record))
        if len(self._waiting) == 1:
            self._begin()
            self._finish_rollouts(now)

    def tick(self, now: float) -> bool:
        """Do what is due; return whether a rollout goes on."""
        for _ in range(AT_ONCE):
            if self._remaining:
                self._send_to(self._waiting[0], self._remaining.popleft())
        self._finish_rollouts(now)
        if now >= self._due:
            self._flush()
        if now >= self._publisher.deadline() and not self._waiting:
            self._flush()
            self._publisher.beat(now)
            self._channels.flush()
        return bool(self._waiting)

    def deadline(self) -> float:
        """When ``tick`` has something to do, unless it has returned that it has."""
        return min(self._due, self._publisher.deadline())

    def _flush(self) -> None:
        """Publish the waiting changes."""
        while self._sent_to_all:
            self._publisher.publish(self._sent_to_all.popleft())
        self._due = float("inf")

    def _begin(self) -> None:
        update = self._waiting[0]
        port, epoch = update.record.port, update.record.epoch
        if update.change == "leave":
            self._rolled_out.pop(port, None)
        elif self._rolled_out.get(port) != epoch:
            self._rolled_out[port] = epoch
            if not self._publisher.quiet:
                own = update.record.incarnation
                self._remaining.extend(sorted(self._channels.holders(), key=lambda each: each.served == own))
        if not self._remaining or not self._publisher.has_asked_for_table(port, epoch):
            self._flush()
            self._publisher.publish(update)

    def _finish_rollouts(self, now: float) -> None:
        while self._waiting and not self._remaining:
            update = self._waiting.popleft()
            if self._publisher.published < update.sequence:
                self._sent_to_all.append(update)
                self._due = min(self._due, now + LINGER_S)
            if self._waiting:
                self._begin()

    def _send_to(self, update: Update, worker: WorkerChannel) -> None:
        held = self._fd_store.get(update.record.port)
        record = None if worker.served is None else self._record_of(worker.served)
        if held is None or held.flood_epoch != update.record.epoch or record is None:
            return
        with suppress(LocalError):  # then the worker asks for the ring
            self._channels.send(worker, update, (held.flood,) if may_talk(record, update.record) else ())

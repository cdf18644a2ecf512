"""Join rollout: send newcomers' changes to one worker after the other; publish all other changes.

Theory of operation. ZeroMQ wakes all workers at once, two threads of each, and each worker then asks for the
newcomer's flood ring. If there are more workers than cores, the newcomer and the VM that it talks to wait in
this crowd. So a change with a new flood ring goes to each worker over its channel, together with the ring
(without it if the two may not talk): one wake-up instead of four. A worker handles the change while the next
one gets it, so there is no crowd. The oldest worker gets it first (the gateway's, if there is a gateway),
since newcomers talk to that one. The newcomer gets it last, when it is on its way to all others.

A message costs a worker a turn of its loop, however many newcomers it tells of. So the next rollout begins
when the workers have had the time for this one (``TURN_S`` each), and takes all changes that have come
meanwhile, up to ``MAX_PART`` in one message. A VM that attaches alone waits for nothing, and of 250 that
attach at once each worker hears in a few dozen messages.

Example: ports 1, 2 and 3 are live, port 4 says Hello. Its ``join`` goes over the channels to 1, 2, 3, then 4.
Within the next 1.6 ms ports 5 to 9 say Hello. Their five changes go to 1 to 4 in one message each with five
descriptors, then to 5 to 9.

A reserved port (``reserve``) is rolled out before its VM is there. When the VM comes (``arrive``), only its
own worker gets the change at once. For the others it is *late*: it goes with the next changes, or is
published before the next beat. The same holds for a reserved port that is not used (``cancel``).

Changes without a newcomer are published, together too, when the rollouts before them are over. So are beats,
whose sequence would otherwise be ahead. A worker without a channel, or whose channel has no room, misses a
rollout. The next beat shows it the gap, and it asks for the table.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from forwarder.errors import LocalError
from forwarder.messages import MAX_PART, Change, Update
from forwarder.names import Incarnation, PortRecord, may_talk
from supervisor.membership.publisher import Publisher
from supervisor.pool.channels import WorkerChannel, WorkerChannels
from supervisor.rings.fd_store import FdStore

TURN_S = 0.0004
"""A turn of a worker whose memory no cache holds, because all others take theirs, too."""
AT_ONCE = 64
"""Workers in one turn, so that a rollout does not keep the loop from the next newcomer: a millisecond."""

IN_LOG = {"reserve": "join", "arrive": "change", "cancel": "leave"}
"""What the changes of reserved ports are in the log and for workers."""
LATE = frozenset({"arrive", "cancel"})
"""Changes for which no other worker waits."""

RecordOf = Callable[[Incarnation], PortRecord | None]
"""Returns the present record of a served port."""


class JoinRollout:
    """The changes that have not gone out yet."""

    def __init__(
        self, publisher: Publisher, channels: WorkerChannels, fd_store: FdStore, record_of: RecordOf
    ) -> None:
        self._publisher = publisher
        self._channels = channels
        self._fd_store = fd_store
        self._record_of = record_of
        self._waiting: deque[tuple[str, Update]] = deque()
        """Changes in their order, of one each, with the registry's word."""
        self._late: list[Update] = []
        """The changes before those, which at most one worker has got: up to MAX_PART."""
        self._update = Update(0, 0, (), ())
        """The changes that are being rolled out."""
        self._newcomers: tuple[PortRecord, ...] = ()
        """Those of them with a new flood ring."""
        self._remaining: deque[WorkerChannel] = deque()
        """The workers that they have still to be sent to."""
        self._next_at = 0.0
        """When the next changes go out, at the earliest."""
        self._rolled_out: dict[int, int] = {}
        """The epoch under which each port was rolled out."""

    def publish(self, change: str, record: PortRecord) -> None:
        """Send a change to every worker, at the next ``tick``."""
        in_log = IN_LOG.get(change, change)
        if change == "join" and self._publisher.log.get(record.port) is not None:
            in_log = "change"  # it was reserved, and has other settings: all hear of them before it is read
            self._rolled_out.pop(record.port, None)
        self._waiting.append((change, self._publisher.log.update(in_log, record)))

    def tick(self, now: float) -> bool:
        """Do what is due; return whether there is more to do."""
        for _ in range(AT_ONCE):
            if not self._remaining and not self._begin(now):
                break
            self._send_to(self._remaining.popleft())
        if now >= self._publisher.deadline() and not self._waiting and not self._remaining:
            self._publish_late()
            self._publisher.beat(now)
            self._channels.flush()
        return bool(self._remaining)

    def deadline(self) -> float:
        """When ``tick`` has something to do, unless it has returned that it has."""
        return self._next_at if self._waiting else self._publisher.deadline()

    def _begin(self, now: float) -> bool:
        """Publish the next changes, or begin to roll them out; return whether a rollout is under way."""
        self._take_late()
        while self._waiting and now >= self._next_at:
            count = min(len(self._waiting), MAX_PART - len(self._late))
            together = [self._waiting.popleft() for _ in range(count)]
            self._update = _joined([*self._late, *(update for _, update in together)])
            self._late.clear()
            self._newcomers = self._note_newcomers(self._update.changes)
            if not self._newcomers:
                self._publisher.publish(self._update)
            elif not self._publisher.quiet:
                arrived = {_incarnation(update) for change, update in together if change == "arrive"}
                self._remaining.extend(self._in_order(arrived))
            self._next_at = now + TURN_S * len(self._remaining)
            if self._remaining:
                return True
            self._take_late()
        return False

    def _take_late(self) -> None:
        """Take the next changes as long as they are late ones, and tell the worker of a VM that has come."""
        while self._waiting and self._waiting[0][0] in LATE:
            if len(self._late) == MAX_PART - 1:
                self._publish_late()
            change, update = self._waiting.popleft()
            self._late.append(update)
            if change == "arrive" and not self._publisher.quiet:
                self._tell_own(_incarnation(update))

    def _tell_own(self, arrived: Incarnation) -> None:
        for worker in [each for each in self._channels.holders() if each.served == arrived]:
            with suppress(LocalError):  # then the next beat shows the gap
                self._channels.send(worker, _joined(self._late))

    def _in_order(self, arrived: set[Incarnation]) -> list[WorkerChannel]:
        """Return all workers: of VMs on reserved ports first, of newcomers last."""
        own = {record.incarnation for record in self._newcomers}
        return sorted(
            self._channels.holders(), key=lambda each: (each.served not in arrived, each.served in own)
        )

    def _publish_late(self) -> None:
        if self._late:
            self._publisher.publish(_joined(self._late))
            self._late.clear()

    def _note_newcomers(self, changes: tuple[Change, ...]) -> tuple[PortRecord, ...]:
        newcomers: dict[int, PortRecord] = {}
        for change, record in changes:
            if change == "leave":
                self._rolled_out.pop(record.port, None)
                newcomers.pop(record.port, None)
            elif record.port in newcomers or self._rolled_out.get(record.port) != record.epoch:
                self._rolled_out[record.port] = record.epoch
                newcomers[record.port] = record
        return tuple(newcomers.values())

    def _send_to(self, worker: WorkerChannel) -> None:
        record = None if worker.served is None else self._record_of(worker.served)
        if record is None:
            return
        floods: list[tuple[int, int]] = []
        descriptors: list[int] = []
        for newcomer in self._newcomers:
            flood = self._fd_store.flood(newcomer.incarnation)
            present = self._record_of(newcomer.incarnation) or newcomer  # settings may have changed since
            if flood is not None and newcomer.port != record.port and may_talk(record, present):
                floods.append(newcomer.incarnation)
                descriptors.append(flood)
        with suppress(LocalError):  # then the next beat shows the gap
            self._channels.send(worker, self._update._replace(floods=tuple(floods)), tuple(descriptors))


def _joined(updates: list[Update]) -> Update:
    """Return changes that follow each other as one update."""
    return updates[0]._replace(changes=tuple(change for update in updates for change in update.changes))


def _incarnation(update: Update) -> Incarnation:
    return update.changes[0].record.incarnation

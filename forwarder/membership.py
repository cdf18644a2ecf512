"""Membership: the supervisor's log of who is a port, and the replica of it in every worker.

Theory of operation
-------------------
One ``MembershipLog`` numbers every change. Each message carries its epoch (which supervisor) and sequence
(how many changes so far); a *beat* carries the current sequence too, or nobody would notice that the
last update was lost. A ``Replica`` that has applied change n of an epoch holds exactly the publisher's
table after change n: that is the invariant, and everything below serves it.

A replica starts with one snapshot and then applies updates in sequence. A snapshot is only asked for
once an ordinary message has come through the subscription: until one has, the subscription may not be
in force, and an update published between snapshot and subscription would be missed. Updates that arrive
while the snapshot is under way are kept and applied to it. A gap, a beat that is ahead, another epoch or
silence mean that the replica may be old. It then asks again, after a random pause, so that a thousand
workers that noticed the same thing do not ask at once. The old table stays in force until the new one
is complete; what the caller is told is the difference between the two. A snapshot that does not reach
everything heard of the stream (a late answer, another supervisor's) is dropped, and the next one asked for.

Both classes are pure: messages and ``now`` (monotonic seconds) in, actions out, and ``deadline`` says
when ``tick`` wants to be called.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import NamedTuple

from forwarder.errors import LocalError
from forwarder.messages import MAX_PART, Beat, SnapshotPart, Update
from forwarder.names import MAX_PORTS, PortRecord

BEAT_S = 1.0
"""Shortest time between beats, and between pulses."""

BEATS_PER_SECOND = 10
"""Beats that the supervisor sends in all, over every subscriber: a larger fleet hears them less often. Each
wakes two threads of a worker and two of the supervisor, which answers it."""

PULSES_PER_SECOND = 50
"""Pulses of all workers together. One costs a tenth of a beat: the core wakes, turns once and publishes."""

SILENT_BEATS = 3
"""Beats that may be missing before it is silence: one may be lost and one late."""

ASK_FIRST_S = 0.5
ASK_LONGEST_S = 8.0
"""A snapshot is asked for again after the first of these, doubling up to the second."""

BUFFERED = MAX_PORTS
"""Updates kept while a snapshot, or an earlier one, is under way: every port may join or leave once. Of
more, the oldest go, and a snapshot too old for the rest is asked for again."""


class Snapshot(NamedTuple):
    """The whole table as it is after update ``sequence``."""

    epoch: int
    sequence: int
    records: tuple[PortRecord, ...]

    def parts(self) -> Iterator[SnapshotPart]:
        """Return the messages that carry it, in order."""
        for start in range(0, max(1, len(self.records)), MAX_PART):
            end = start + MAX_PART
            yield SnapshotPart(self.epoch, self.sequence, end < len(self.records), self.records[start:end])


class SnapshotParts:
    """The parts of a snapshot that have come, in order, until it is whole."""

    def __init__(self) -> None:
        self._records: list[PortRecord] = []
        self._of = (0, 0)

    def add(self, part: SnapshotPart) -> Snapshot | None:
        """Take the next part; return the snapshot if that was its last. Another one's part begins anew."""
        of = (part.epoch, part.sequence)
        if of != self._of or len(self._records) + len(part.records) >= MAX_PORTS:
            self._of, self._records = of, []
        self._records += part.records
        if part.more:
            return None
        records, self._records, self._of = tuple(self._records), [], (0, 0)
        return Snapshot(part.epoch, part.sequence, records)


class MembershipLog:
    """The log: numbers the changes that the registry decides, and knows the table after the last one."""

    def __init__(self, epoch: int) -> None:
        """``epoch``: another one than that of any earlier supervisor of this runtime directory."""
        self.epoch = epoch
        self.sequence = 0
        self._table: dict[int, PortRecord] = {}

    def interval_s(self) -> float:
        """Return the time from one beat to the next: it grows with the fleet, so that their sum does not."""
        return max(BEAT_S, len(self._table) / BEATS_PER_SECOND)

    def beat(self) -> Beat:
        """Return the beat for now."""
        pulse_s = max(BEAT_S, len(self._table) / PULSES_PER_SECOND)
        return Beat(self.epoch, self.sequence, int(self.interval_s() * 1000), int(pulse_s * 1000))

    def update(self, change: str, record: PortRecord) -> Update:
        """Enter ``join``, ``change`` or ``leave``. Raises LocalError if the table does not allow it."""
        known = self._table.get(record.port)
        if change == "join":
            if known is not None:
                raise LocalError(f"port {record.port} has joined already")
        elif known is None or known.born != record.born or known.epoch > record.epoch:
            raise LocalError(f"port {record.port} cannot {change}: that incarnation of it is no member")
        if change == "leave":
            del self._table[record.port]
        else:
            self._table[record.port] = record
        self.sequence += 1
        return Update(self.epoch, self.sequence, change, record)

    def snapshot(self) -> Snapshot:
        """Return the whole table."""
        return Snapshot(self.epoch, self.sequence, tuple(self._table.values()))


class ReplicaState(Enum):
    """What a replica knows about its own table."""

    COLD = auto()
    """Subscribed; nothing has arrived yet."""
    LISTENING = auto()
    """The table may be old; a snapshot will be asked for after a pause and a message."""
    SYNCING = auto()
    """Asked for a snapshot; updates are kept."""
    LIVE = auto()
    """The table is the publisher's after change ``sequence``, and no later change is known of."""


class ReplicaEvent(Enum):
    """What a message, or time, means to a replica."""

    HEARD = auto()
    """A beat or an update that leaves nothing to doubt."""
    LOST = auto()
    """A gap, a beat that is ahead, or another epoch."""
    SILENT = auto()
    PAUSED = auto()
    """The pause is over, and a message has arrived since the doubt began."""
    SYNCED = auto()
    """A snapshot that, with the updates kept, reaches everything heard of."""


TRANSITIONS: dict[tuple[ReplicaState, ReplicaEvent], ReplicaState] = {
    (ReplicaState.COLD, ReplicaEvent.HEARD): ReplicaState.SYNCING,
    (ReplicaState.LISTENING, ReplicaEvent.HEARD): ReplicaState.LISTENING,
    (ReplicaState.LISTENING, ReplicaEvent.PAUSED): ReplicaState.SYNCING,
    (ReplicaState.SYNCING, ReplicaEvent.HEARD): ReplicaState.SYNCING,
    # Another epoch: the answer may never come.
    (ReplicaState.SYNCING, ReplicaEvent.LOST): ReplicaState.LISTENING,
    (ReplicaState.SYNCING, ReplicaEvent.SILENT): ReplicaState.LISTENING,
    (ReplicaState.SYNCING, ReplicaEvent.SYNCED): ReplicaState.LIVE,
    (ReplicaState.LIVE, ReplicaEvent.HEARD): ReplicaState.LIVE,
    (ReplicaState.LIVE, ReplicaEvent.LOST): ReplicaState.LISTENING,
    (ReplicaState.LIVE, ReplicaEvent.SILENT): ReplicaState.LISTENING,
}

_NO_CROWD = "the first message is answered at once: one worker that starts is no crowd"
_HAS_ASKED = "the worker has asked; asking again is a matter of back-off, not of state"
_NO_TABLE = "there is no table yet that could be old, and no beat has told the interval"
_NOT_ASKED = "not asked for, or the answer came after the doubt: updates since then have not been kept"
_DOUBTED = "it is in doubt already; what is heard now is only noted, and the snapshot will tell"

PROHIBITED: dict[tuple[ReplicaState, ReplicaEvent], str] = {
    (ReplicaState.COLD, ReplicaEvent.LOST): _NO_TABLE,
    (ReplicaState.COLD, ReplicaEvent.SILENT): _NO_TABLE,
    (ReplicaState.COLD, ReplicaEvent.PAUSED): _NO_CROWD,
    (ReplicaState.COLD, ReplicaEvent.SYNCED): _NOT_ASKED,
    (ReplicaState.LISTENING, ReplicaEvent.LOST): _DOUBTED,
    (ReplicaState.LISTENING, ReplicaEvent.SILENT): _DOUBTED,
    (ReplicaState.LISTENING, ReplicaEvent.SYNCED): _NOT_ASKED,
    (ReplicaState.SYNCING, ReplicaEvent.PAUSED): _HAS_ASKED,
    (ReplicaState.LIVE, ReplicaEvent.PAUSED): "a table in no doubt needs no snapshot",
    (ReplicaState.LIVE, ReplicaEvent.SYNCED): "it would set the table back to an earlier one",
}
"""Every pair that is not a transition, and why: a test checks that no pair is in both tables or in none."""


class AskSnapshot(NamedTuple):
    """Send the supervisor a SnapshotRequest."""


class Joined(NamedTuple):
    """A port is there that was not; it may be the worker's own."""

    record: PortRecord


class Changed(NamedTuple):
    """The same attachment of the same VM has another epoch, another policy or another name."""

    record: PortRecord


class Left(NamedTuple):
    """A port is gone; ``record`` is the last that was known of it."""

    record: PortRecord


Action = AskSnapshot | Joined | Changed | Left


class Replica:
    """One worker's copy of the table."""

    def __init__(self, now: float, random: Callable[[], float], interval_s: float = BEAT_S) -> None:
        """``random``: gives numbers from 0 to 1, for the jitter of pauses. ``interval_s``: between beats."""
        self.state = ReplicaState.COLD
        self.epoch = 0
        """Supervisor whose table is in force; 0 before the first."""
        self.sequence = 0
        """The last change applied to it."""
        self._table: dict[int, PortRecord] = {}
        self._random = random
        self._interval = interval_s
        self._spread = BEAT_S
        self._heard_epoch = 0
        self._heard_sequence = 0
        self._heard_at = now
        self._kept: dict[int, Update] = {}
        self._proven = False
        """Whether a message has arrived since the doubt began."""
        self._due = now
        """When a pause ends (LISTENING), or when to ask again (SYNCING)."""
        self._backoff = ASK_FIRST_S
        self._stale_since: float | None = None
        self._stale_s = 0.0

    @property
    def table(self) -> Mapping[int, PortRecord]:
        """The ports that are to be believed in now, the worker's own among them."""
        return self._table

    def stale_s(self, now: float) -> float:
        """Return for how many seconds, in all, a table in doubt has been in force."""
        return self._stale_s + (0.0 if self._stale_since is None else now - self._stale_since)

    def deadline(self) -> float:
        """When ``tick`` has something to do; infinity if only a message can change anything."""
        if self.state is ReplicaState.LIVE:
            return self._silent_at()
        if self.state is ReplicaState.SYNCING:
            return min(self._due, self._silent_at())
        return self._due if self._proven else float("inf")

    def receive(self, message: Beat | Update | Snapshot, now: float) -> list[Action]:
        """Take a message of the supervisor, in the order of arrival."""
        if isinstance(message, Snapshot):
            return self._install(message, now)
        self._heard_at = now
        if isinstance(message, Beat):
            self._interval = message.interval_ms / 1000
            self._spread = message.pulse_ms / 1000
        restarted = message.epoch != self._heard_epoch
        if restarted:
            self._heard_epoch = message.epoch
            self._heard_sequence = self.sequence if message.epoch == self.epoch else 0
        self._heard_sequence = max(self._heard_sequence, message.sequence)
        if self.state is ReplicaState.LIVE:
            return self._follow(message, restarted, now)
        if self.state is ReplicaState.SYNCING and restarted:
            return self._doubt(ReplicaEvent.LOST, now)
        if self.state is ReplicaState.SYNCING:
            self._move(ReplicaEvent.HEARD)
            if isinstance(message, Update):
                self._keep(message)
            return []
        if self.state is ReplicaState.COLD:
            self._move(ReplicaEvent.HEARD)
            return self._ask(now)
        self._move(ReplicaEvent.HEARD)
        self._proven = True
        return self.tick(now)

    def overhear(self, update: Update, now: float) -> list[Action]:
        """Take a change that came on another way than the subscription, before or after what went there.

        It proves nothing of the subscription and a gap before it is none: what is not the next change is
        kept until it is.
        """
        if update.epoch != self._heard_epoch:
            return []
        if self.state is ReplicaState.LIVE and update.sequence == self.sequence + 1:
            return self.receive(update, now)
        if self.state is ReplicaState.SYNCING or (
            self.state is ReplicaState.LIVE and update.sequence > self.sequence
        ):
            self._keep(update)
        return []

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        if self.state in (ReplicaState.LIVE, ReplicaState.SYNCING) and now >= self._silent_at():
            return self._doubt(ReplicaEvent.SILENT, now)
        if self.state is ReplicaState.LISTENING and self._proven and now >= self._due:
            self._move(ReplicaEvent.PAUSED)
            return self._ask(now)
        if self.state is ReplicaState.SYNCING and now >= self._due:
            self._backoff = min(self._backoff * 2, ASK_LONGEST_S)
            return self._ask_again(now)
        return []

    def _silent_at(self) -> float:
        return self._heard_at + SILENT_BEATS * self._interval

    def _move(self, event: ReplicaEvent) -> None:
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise LocalError(f"{event.name} while {self.state.name}: {PROHIBITED[self.state, event]}")
        self.state = state

    def _follow(self, message: Beat | Update, restarted: bool, now: float) -> list[Action]:
        """Take a message while LIVE."""
        following = self.sequence + (1 if isinstance(message, Update) else 0)
        if restarted or message.sequence > following:
            return self._doubt(ReplicaEvent.LOST, now)
        self._move(ReplicaEvent.HEARD)
        if isinstance(message, Beat) or message.sequence < following:
            return []
        actions: list[Action] = []
        update: Update | None = message
        while update is not None:
            port = update.record.port
            before = self._table.get(port)
            _apply(self._table, update)
            self.sequence = update.sequence
            actions += _difference(before, self._table.get(port))
            update = self._kept.pop(self.sequence + 1, None)
        return actions

    def _keep(self, update: Update) -> None:
        self._kept[update.sequence] = update
        if len(self._kept) > BUFFERED:
            del self._kept[min(self._kept)]

    def _doubt(self, event: ReplicaEvent, now: float) -> list[Action]:
        """Begin to resynchronise: the pause spreads the fleet's questions over half a pulse's interval."""
        self._move(event)
        self._proven = event is ReplicaEvent.LOST
        self._due = now + self._random() * self._spread / 2
        if self._stale_since is None and self.epoch:
            self._stale_since = now
        return []

    def _ask(self, now: float) -> list[Action]:
        self._kept.clear()
        self._backoff = ASK_FIRST_S
        return self._ask_again(now)

    def _ask_again(self, now: float) -> list[Action]:
        self._due = now + self._backoff * (0.5 + self._random() / 2)
        return [AskSnapshot()]

    def _install(self, snapshot: Snapshot, now: float) -> list[Action]:
        """Make the new table aside, and swap it in if it reaches everything heard of."""
        if (self.state, ReplicaEvent.SYNCED) in PROHIBITED or snapshot.epoch != self._heard_epoch:
            return []
        table = {record.port: record for record in snapshot.records}
        sequence = snapshot.sequence
        while (update := self._kept.get(sequence + 1)) is not None:
            _apply(table, update)
            sequence += 1
        if sequence < self._heard_sequence:
            return []
        self._move(ReplicaEvent.SYNCED)
        self._stale_s, self._stale_since = self.stale_s(now), None
        self._kept.clear()
        before, self._table = self._table, table
        self.epoch, self.sequence = snapshot.epoch, sequence
        actions: list[Action] = []
        for port in sorted(before.keys() | table.keys()):
            actions += _difference(before.get(port), table.get(port))
        return actions


def _apply(table: dict[int, PortRecord], update: Update) -> None:
    if update.change == "leave":
        table.pop(update.record.port, None)
    else:
        table[update.record.port] = update.record


def _difference(before: PortRecord | None, after: PortRecord | None) -> list[Action]:
    """Return what turns one view of a port into the other; a number with another VM leaves, then joins."""
    if before == after:
        return []
    if before is not None and after is not None and before.born == after.born:
        return [Changed(after)]
    actions: list[Action] = [] if before is None else [Left(before)]
    return actions if after is None else [*actions, Joined(after)]

"""The replica of membership in a worker: a copy of the supervisor's table that knows when it may be old.

Theory of operation
-------------------
A replica starts with one snapshot and then applies updates in sequence. The invariant: a ``Replica`` that has
applied change n of an epoch holds exactly the publisher's table after change n (``membership``).

It asks for a snapshot only after an ordinary message has come through the subscription. Before that, the
subscription may not be in force, and an update between snapshot and subscription would be missed. Updates
that arrive while the snapshot is under way are kept and applied to it. A gap, a beat that is ahead, another
epoch or silence mean that the replica may be old. It then asks again after a random pause, so that a thousand
workers do not ask at once. The old table stays in force until the new one is complete; the caller gets the
difference between the two. If a snapshot is older than messages that have come since (a late answer, or
another supervisor's), it is dropped, and the next one is asked for.

    the replica is at change 7 of epoch 5      a beat says 9: LOST, a pause of at most half a pulse interval
    the pause is over, and messages come       asks; update 10 arrives and is kept
    the snapshot after change 9 arrives        change 10 is applied to it: LIVE at 10

Pure: messages and ``now`` (monotonic seconds) in, actions out, and ``deadline`` says when to call ``tick``.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import NamedTuple

from forwarder.errors import LocalError
from forwarder.membership import BEAT_S, Snapshot
from forwarder.messages import Beat, Change, Update
from forwarder.names import MAX_PORTS, PortRecord

SILENT_BEATS = 3
"""Missing beats that mean silence: one may be lost and one late."""

ASK_FIRST_S = 0.5
ASK_LONGEST_S = 8.0
"""A snapshot is asked for again after the first of these, doubling up to the second."""

BUFFERED = MAX_PORTS
"""Changes kept while a snapshot is under way: every port may join or leave once. Beyond that the oldest are
dropped, and a snapshot too old for the rest is asked for again."""


class ReplicaState(Enum):
    """The states of a replica."""

    COLD = auto()
    """Subscribed; nothing has arrived yet."""
    LISTENING = auto()
    """The table may be old; a snapshot will be asked for after a pause and a message."""
    SYNCING = auto()
    """Asked for a snapshot; updates are kept."""
    LIVE = auto()
    """The table is the publisher's after change ``sequence``, and no later change is known."""


class ReplicaEvent(Enum):
    """The meanings of a message, or of time, for a replica."""

    HEARD = auto()
    """A beat or an update that fits the table."""
    LOST = auto()
    """A gap, a beat that is ahead, or another epoch."""
    SILENT = auto()
    PAUSED = auto()
    """The pause is over, and a message has arrived since the doubt began."""
    SYNCED = auto()
    """A snapshot that, with the kept updates, reaches the latest known change."""


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

_NO_CROWD = "the first snapshot is asked for at once: one worker that starts is no crowd"
_HAS_ASKED = "the worker has asked already; the back-off decides when it asks again"
_NO_TABLE = "there is no table yet that could be old, and no beat has told the interval"
_NOT_ASKED = "not asked for, or too late: updates since the doubt have not been kept"
_DOUBTED = "the table is suspect already; the message is recorded but changes nothing"

PROHIBITED: dict[tuple[ReplicaState, ReplicaEvent], str] = {
    (ReplicaState.COLD, ReplicaEvent.LOST): _NO_TABLE,
    (ReplicaState.COLD, ReplicaEvent.SILENT): _NO_TABLE,
    (ReplicaState.COLD, ReplicaEvent.PAUSED): _NO_CROWD,
    (ReplicaState.COLD, ReplicaEvent.SYNCED): _NOT_ASKED,
    (ReplicaState.LISTENING, ReplicaEvent.LOST): _DOUBTED,
    (ReplicaState.LISTENING, ReplicaEvent.SILENT): _DOUBTED,
    (ReplicaState.LISTENING, ReplicaEvent.SYNCED): _NOT_ASKED,
    (ReplicaState.SYNCING, ReplicaEvent.PAUSED): _HAS_ASKED,
    (ReplicaState.LIVE, ReplicaEvent.PAUSED): "a table without doubt needs no snapshot",
    (ReplicaState.LIVE, ReplicaEvent.SYNCED): "it would set the table back to an earlier one",
}
"""Every other pair, with the reason. A test checks that each pair is in exactly one of the two tables."""


class AskSnapshot(NamedTuple):
    """Send a SnapshotRequest to the supervisor."""


class Joined(NamedTuple):
    """A new port; it may be the worker's own."""

    record: PortRecord


class Changed(NamedTuple):
    """The same attachment of the same VM has another epoch, another policy or another name."""

    record: PortRecord


class Left(NamedTuple):
    """A port has left; ``record`` is its last record."""

    record: PortRecord


Action = AskSnapshot | Joined | Changed | Left


class Replica:
    """One worker's copy of the table."""

    def __init__(self, now: float, random: Callable[[], float], interval_s: float = BEAT_S) -> None:
        """Begin empty; ``random`` returns numbers from 0 to 1, ``interval_s`` is between two beats."""
        self.state = ReplicaState.COLD
        self.epoch = 0
        """Epoch of the supervisor whose table is in force; 0 before the first."""
        self.sequence = 0
        """The last change applied to the table."""
        self._table: dict[int, PortRecord] = {}
        self._random = random
        self._interval = interval_s
        self._spread = BEAT_S
        self._heard_epoch = 0
        self._heard_sequence = 0
        self._heard_at = now
        self._kept: dict[int, Change] = {}
        """Changes that came before the one that is next, by their number."""
        self._proven = False
        """Whether a message has arrived since the doubt began."""
        self._due = now
        """When the pause ends (LISTENING), or when to ask again (SYNCING)."""
        self._backoff = ASK_FIRST_S

    @property
    def table(self) -> Mapping[int, PortRecord]:
        """The ports of the table in force, with the worker's own."""
        return self._table

    def deadline(self) -> float:
        """When ``tick`` has something to do; infinity if only a message can change anything."""
        if self.state is ReplicaState.LIVE:
            return self._silent_at()
        if self.state is ReplicaState.SYNCING:
            return min(self._due, self._silent_at())
        return self._due if self._proven else float("inf")

    def receive(self, message: Beat | Update | Snapshot, now: float) -> list[Action]:
        """Take a published message, in the order of arrival."""
        if isinstance(message, Snapshot):
            return self._install(message)
        self._heard_at = now
        if isinstance(message, Beat):
            self._interval = message.interval_ms / 1000
            self._spread = message.pulse_ms / 1000
        restarted = message.epoch != self._heard_epoch
        if restarted:
            self._heard_epoch = message.epoch
            self._heard_sequence = self.sequence if message.epoch == self.epoch else 0
        self._heard_sequence = max(self._heard_sequence, _last(message))
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
        """Take changes that came by channel instead of the subscription.

        They do not prove that the subscription is in force, and a gap before them is none: they are kept
        until they are the next ones.
        """
        if update.epoch != self._heard_epoch:
            return []
        if self.state is ReplicaState.LIVE and update.sequence <= self.sequence + 1:
            return self.receive(update, now)
        if self.state in (ReplicaState.SYNCING, ReplicaState.LIVE):
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
        if isinstance(message, Beat):
            return []
        self._keep(message)
        actions: list[Action] = []
        while (change := self._kept.pop(self.sequence + 1, None)) is not None:
            port = change.record.port
            before = self._table.get(port)
            _apply(self._table, change)
            self.sequence += 1
            actions += _difference(before, self._table.get(port))
        return actions

    def _keep(self, update: Update) -> None:
        """Keep the changes of an update, without those that the table has."""
        for number, change in enumerate(update.changes, update.sequence):
            if number > self.sequence or self.state is not ReplicaState.LIVE:
                self._kept[number] = change
        while len(self._kept) > BUFFERED:
            del self._kept[min(self._kept)]

    def _doubt(self, event: ReplicaEvent, now: float) -> list[Action]:
        """Begin to resynchronise; the pause spreads the fleet over half a pulse interval."""
        self._move(event)
        self._proven = event is ReplicaEvent.LOST
        self._due = now + self._random() * self._spread / 2
        return []

    def _ask(self, now: float) -> list[Action]:
        self._kept.clear()
        self._backoff = ASK_FIRST_S
        return self._ask_again(now)

    def _ask_again(self, now: float) -> list[Action]:
        self._due = now + self._backoff * (0.5 + self._random() / 2)
        return [AskSnapshot()]

    def _install(self, snapshot: Snapshot) -> list[Action]:
        """Build the new table aside, and swap it in if it reaches the latest known change."""
        if (self.state, ReplicaEvent.SYNCED) in PROHIBITED or snapshot.epoch != self._heard_epoch:
            return []
        table = {record.port: record for record in snapshot.records}
        sequence = snapshot.sequence
        while (change := self._kept.get(sequence + 1)) is not None:
            _apply(table, change)
            sequence += 1
        if sequence < self._heard_sequence:
            return []
        self._move(ReplicaEvent.SYNCED)
        self._kept.clear()
        before, self._table = self._table, table
        self.epoch, self.sequence = snapshot.epoch, sequence
        actions: list[Action] = []
        for port in sorted(before.keys() | table.keys()):
            actions += _difference(before.get(port), table.get(port))
        return actions


def _last(message: Beat | Update) -> int:
    """Return the number of the last change that a message tells of."""
    return message.last if isinstance(message, Update) else message.sequence


def _apply(table: dict[int, PortRecord], change: Change) -> None:
    if change.change == "leave":
        table.pop(change.record.port, None)
    else:
        table[change.record.port] = change.record


def _difference(before: PortRecord | None, after: PortRecord | None) -> list[Action]:
    """Return the actions that turn one view of a port into the other; another VM means leave, then join."""
    if before == after:
        return []
    if before is not None and after is not None and before.born == after.born:
        return [Changed(after)]
    actions: list[Action] = [] if before is None else [Left(before)]
    return actions if after is None else [*actions, Joined(after)]

"""Membership: the supervisor's log of all ports, as beats, updates and snapshots.

Theory of operation. A ``MembershipLog`` numbers every change of the registry. Each message carries its epoch
(which supervisor) and sequence (how many changes so far). A *beat* carries the current sequence, too, so that
a lost last update is noticed. A snapshot is the whole table after a change. ``replica`` has the other side: a
worker's replica that has applied change n of an epoch holds exactly this log's table after change n.

Pure: no clock and no socket; ``supervisor.membership.publisher`` sends what it makes.
"""

from collections.abc import Iterator
from typing import NamedTuple

from forwarder.errors import LocalError
from forwarder.messages import MAX_PART, Beat, Change, SnapshotPart, Update
from forwarder.names import MAX_PORTS, PortRecord

BEAT_S = 1.0
"""Shortest time between beats, and between pulses."""

BEATS_PER_SECOND = 10
"""Beats a second to all subscribers together: a larger fleet gets them less often. Each wakes two threads of
a worker and two of the supervisor, since the worker answers."""

PULSES_PER_SECOND = 50
"""Pulses a second of all workers together. A pulse costs a tenth of a beat: the core wakes, turns once and
publishes."""


class Snapshot(NamedTuple):
    """The whole table after update ``sequence``."""

    epoch: int
    sequence: int
    records: tuple[PortRecord, ...]

    def parts(self) -> Iterator[SnapshotPart]:
        """Return the messages that carry it, in order."""
        for start in range(0, max(1, len(self.records)), MAX_PART):
            end = start + MAX_PART
            yield SnapshotPart(self.epoch, self.sequence, end < len(self.records), self.records[start:end])


class SnapshotParts:
    """Collects the parts of a snapshot, in order, until it is whole."""

    def __init__(self) -> None:
        self._records: list[PortRecord] = []
        self._of = (0, 0)

    def add(self, part: SnapshotPart) -> Snapshot | None:
        """Take the next part; return the snapshot after its last one.

        A part of another snapshot begins anew.
        """
        of = (part.epoch, part.sequence)
        if of != self._of or len(self._records) + len(part.records) >= MAX_PORTS:
            self._of, self._records = of, []
        self._records += part.records
        if part.more:
            return None
        records, self._records, self._of = tuple(self._records), [], (0, 0)
        return Snapshot(part.epoch, part.sequence, records)


class MembershipLog:
    """The log: numbers the changes of the registry, and holds the table after the last one."""

    def __init__(self, epoch: int) -> None:
        """``epoch`` must differ from that of every earlier supervisor of this runtime directory."""
        self.epoch = epoch
        self.sequence = 0
        self._table: dict[int, PortRecord] = {}

    def interval_s(self) -> float:
        """Return the time between beats: it grows with the fleet, so that the sum of all beats does not."""
        return max(BEAT_S, len(self._table) / BEATS_PER_SECOND)

    def beat(self) -> Beat:
        """Return the present beat."""
        pulse_s = max(BEAT_S, len(self._table) / PULSES_PER_SECOND)
        return Beat(self.epoch, self.sequence, int(self.interval_s() * 1000), int(pulse_s * 1000))

    def update(self, change: str, record: PortRecord) -> Update:
        """Enter ``join``, ``change`` or ``leave``. Raises LocalError if the table does not allow it."""
        known = self._table.get(record.port)
        if change == "join":
            if known is not None:
                raise LocalError(f"port {record.port} has joined already")
        elif known is None or known.born != record.born or known.epoch > record.epoch:
            raise LocalError(f"port {record.port} cannot {change}: it is not a member under that epoch")
        if change == "leave":
            del self._table[record.port]
        else:
            self._table[record.port] = record
        self.sequence += 1
        return Update(self.epoch, self.sequence, (Change(change, record),), ())

    def get(self, port: int) -> PortRecord | None:
        """Return the record of a member."""
        return self._table.get(port)

    def snapshot(self) -> Snapshot:
        """Return the whole table."""
        return Snapshot(self.epoch, self.sequence, tuple(self._table.values()))

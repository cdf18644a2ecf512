"""What each port did in the last hour: its counters once a second for a minute, once a minute for an hour.

Theory of operation
-------------------
The statistics pages are read once a second; nothing is asked of a worker. A file in the runtime directory
has a slot for each port number:

    born | 61 rows of seconds | 61 rows of minutes      a row: monotonic time, frames lost for it, counters

A row is written only if something was counted since the last one, so the value at a time is that of the last
row before it, and an idle port costs a comparison. Rows go round. The file has its room before a slot is
used (a full disk then costs that port its history, and nothing else), and what was written outlives a
``kill -9`` of the supervisor: its successor goes on in the slots of the ports that it takes over. What was
counted while there was no supervisor is in the second of its start. A port that leaves takes its history with
it; a clean end removes the file. It is not mapped: a program that empties it would end the supervisor by
SIGBUS, and costs only history so.

Size: 25 KB a port in use, 6.4 MB for 250, 26 MB for all that there can be.

    10:00:00  port 3 has 700 frames, a row     10:00:01  701, a row     10:00:02 to 10:05:00  701, no row
    asked at 10:05:00 for the last minute: 60 times 0; for the last hour: 701 in the minute of 10:00

One thread, the supervisor's. ``now`` is monotonic, which all supervisors of one machine share.
"""

import os
import stat
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from forwarder import _core, counted
from supervisor.base.logs import log

FILE = "history.ring"
SECOND, MINUTE = 1.0, 60.0
SPANS = {"minute": SECOND, "hour": MINUTE}
"""What can be asked for, and the time between two values."""
VALUES = 60
ROWS = VALUES + 1
"""One more than there are values: each is a difference."""

NAMES = _core.COUNTERS
_ROW = struct.Struct(f"=dQ{len(NAMES)}Q")
_ROW_HEAD = struct.Struct("=dQ")
_TIME = struct.Struct("=d")
_BORN = struct.Struct("=Q")
_LOOP_BYTES = 8 * 3
"""At the end: turns, sleeps, doorbells. They move while nothing happens."""
MEANT = -_LOOP_BYTES
"""Where, in a snapshot, what was counted ends."""
_FLOOD_LOST = 8 * NAMES.index("flood_lost")
_RING_BYTES = ROWS * _ROW.size
_PAGE = os.sysconf("SC_PAGESIZE")
SLOT_BYTES = -(-(_BORN.size + 2 * _RING_BYTES) // _PAGE) * _PAGE


class Counted(NamedTuple):
    """What a port had counted at one time."""

    at: float
    full: int
    """Frames for it that a full ring lost, wherever that was counted."""
    counters: tuple[int, ...]
    """In the order of NAMES."""


def flood_lost(counters: bytes) -> int:
    """Return one counter of a page's ``snapshot``: floods that were overwritten before they were read."""
    return int.from_bytes(counters[_FLOOD_LOST : _FLOOD_LOST + 8], sys.byteorder)


def _counter(name: str) -> Callable[[Counted], int]:
    place = NAMES.index(name)
    return lambda row: row.counters[place]


_DROPS = [NAMES.index(word) for word in counted.DROPS if word != "egress_full"]
FIGURES: dict[str, Callable[[Counted], int]] = {
    **{name: _counter(name) for name in ("rx_frames", "rx_bytes", "tx_frames", "tx_bytes")},
    "drops": lambda row: row.full + sum(row.counters[place] for place in _DROPS),
}
"""What can be asked for of a step, each with how it is read."""


class _Slot:
    """Where the next rows of a port go."""

    __slots__ = ("last", "minute_due", "next")

    def __init__(self) -> None:
        self.next = {SECOND: 0, MINUTE: 0}
        self.last: dict[float, bytes] = {}
        """By step: what the newest row says."""
        self.minute_due = 0.0


class History:
    """The file and what is in it, from construction to ``end``."""

    def __init__(self, path: str, *, inherit: bool) -> None:
        """Open the file, and go on with what a predecessor left in it if there was one (``inherit``).

        Where it cannot be used, the log says so, and there is no history.
        """
        self._path = path
        self._slots: dict[int, _Slot] = {}
        self._file = -1
        try:
            self._open(inherit)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            log.warning("ports have no history: cannot use %s: %s", path, why.lower())

    def arrive(self, port: int, born: int) -> None:
        """Make room for a port; one that was taken over goes on with its rows."""
        if self._file < 0:
            return
        offset = port * SLOT_BYTES
        try:
            os.posix_fallocate(self._file, offset, SLOT_BYTES)
        except OSError as error:
            log.warning("port %d has no history: %s: %s", port, self._path, error.strerror)
            return
        slot = self._slots[port] = _Slot()
        if _BORN.unpack(self._read(offset, _BORN.size))[0] == born:
            for step in (SECOND, MINUTE):
                times = self._times(port, step)
                newest = max(range(ROWS), key=times.__getitem__)
                slot.next[step] = (newest + 1) % ROWS if times[newest] else 0
            return
        self._write(offset, bytes(SLOT_BYTES))
        self._write(offset, _BORN.pack(born))

    def depart(self, port: int) -> None:
        """Forget a port."""
        self._slots.pop(port, None)

    def note(self, port: int, counters: bytes, full: int, now: float) -> float | None:
        """Note what a port has counted by now; ``counters`` as a page's ``snapshot`` gives them.

        Return when to note it again even if it counts nothing until then, for its minute; None: never.
        """
        slot = self._slots.get(port)
        if slot is None:
            return None
        row = _ROW_HEAD.pack(now, full) + counters
        self._keep(port, slot, SECOND, row)
        if now < slot.minute_due:
            return slot.minute_due
        slot.minute_due = now + MINUTE
        self._keep(port, slot, MINUTE, row)
        return None

    def at(self, port: int, when: float) -> Counted | None:
        """Return what a port had counted at a time, as exactly as is known; None: it counted nothing then."""
        found: tuple[float, float, int] | None = None
        for step in (SECOND, MINUTE) if port in self._slots else ():
            for index, time in enumerate(self._times(port, step)):
                if time and time <= when and (found is None or time > found[0]):
                    found = time, step, index
        return None if found is None else self._row(port, found[1], found[2])

    def values(self, port: int, span: str, now: float, pick: Callable[[Counted], int]) -> list[int | None]:
        """Return how much a figure grew in each step of the last minute or hour, the newest last.

        None: of that time nothing is known, since the port, or what is known of it, is younger.
        """
        step = SPANS[span]
        rows = self._rows(port, step)
        grown: list[int | None] = []
        index, latest = 0, None
        for number in range(VALUES + 1):
            end, before = now - (VALUES - number) * step, latest
            while index < len(rows) and rows[index].at <= end:
                latest = rows[index]
                index += 1
            if number:
                known = before is not None and latest is not None
                grown.append(max(0, pick(latest) - pick(before)) if known else None)  # type: ignore[arg-type]
        return grown

    def end(self, *, keep: bool) -> None:
        """Close the file, and remove it unless there is something for a successor."""
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        self._slots.clear()
        if not keep:
            try:
                os.unlink(self._path)
            except OSError:
                return

    def _open(self, inherit: bool) -> None:
        """Open the file, which has no room yet. Raises OSError, or ValueError: it is no file of ours."""
        size = _core.MAX_PORTS * SLOT_BYTES
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        try:
            found = os.fstat(file)
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            if not ours or (found.st_size not in (0, size) and not inherit):
                raise ValueError("it is no file of a supervisor's; move it away")
            if not inherit:
                os.ftruncate(file, 0)
            os.ftruncate(file, size)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _keep(self, port: int, slot: _Slot, step: float, row: bytes) -> None:
        """Write a row, if it says more than when the last was."""
        said = row[_TIME.size : MEANT]
        if slot.last.get(step) == said:
            return
        slot.last[step] = said
        offset = _offset(port, step, slot.next[step])
        # The time is zero meanwhile: a row that was being written when the supervisor was killed is none.
        self._write(offset, _TIME.pack(0.0) + row[_TIME.size :])
        self._write(offset, row[: _TIME.size])
        slot.next[step] = (slot.next[step] + 1) % ROWS

    def _times(self, port: int, step: float) -> list[float]:
        ring = self._read(_offset(port, step, 0), _RING_BYTES)
        return [_TIME.unpack_from(ring, index * _ROW.size)[0] for index in range(ROWS)]

    def _row(self, port: int, step: float, index: int) -> Counted:
        return _counted(_ROW.unpack(self._read(_offset(port, step, index), _ROW.size)))

    def _read(self, offset: int, size: int) -> bytes:
        """Read a part of the file; what another program has cut off is zero."""
        try:
            return os.pread(self._file, size, offset).ljust(size, b"\0")
        except OSError:
            return bytes(size)

    def _write(self, offset: int, data: bytes) -> None:
        with suppress(OSError):  # it was emptied, and the disk is full
            os.pwrite(self._file, data, offset)

    def _rows(self, port: int, step: float) -> list[Counted]:
        """Return the rows of a port in the order of their time; of minutes, the newest second is the last."""
        if port not in self._slots:
            return []
        ring = self._read(_offset(port, step, 0), _RING_BYTES)
        rows = sorted(row for row in map(_counted, _ROW.iter_unpack(ring)) if row.at)
        if step == MINUTE:
            at, index = max((at, index) for index, at in enumerate(self._times(port, SECOND)))
            if rows and at > rows[-1].at:
                rows.append(self._row(port, SECOND, index))
        return rows


def _counted(row: tuple[Any, ...]) -> Counted:
    at, full, *counters = row
    return Counted(at, full, tuple(counters))


def _offset(port: int, step: float, index: int) -> int:
    ring = 0 if step == SECOND else _RING_BYTES
    return port * SLOT_BYTES + _BORN.size + ring + index * _ROW.size

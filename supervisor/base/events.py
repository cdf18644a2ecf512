"""Keep the last thousand events for ``supervisor events``; they outlive the supervisor.

Theory of operation
-------------------
``EventLog`` receives every line of the log from ``info`` on (``logs``). It keeps each record in memory, under
a growing sequence number, and writes it to a slot of a file in the runtime directory. The file has its full
size from the start, so no full disk can refuse a write. Written records outlive a ``kill -9``. A kill in the
middle of a write leaves one damaged slot, which the next supervisor skips. The file is not mapped: a program
that empties it would end the supervisor by SIGBUS. A clean end removes the file.

A frequent kind must not push out the others: when the log is full, the kind with most events loses its oldest
one. Of one kind, ``BURST`` events are kept in a second; further ones are counted in ``more`` of the last one.

The numbers of a new log begin at the time in milliseconds, past those of an earlier switch here: a program
that follows both misses nothing and sees nothing twice. A number that the log has not reached was given out
before the clock was set back; then all events are new.

    slots 0..999    {"sequence": 4711, "time": …, "event": "attach", "port": 3, …}, each padded with zeros

Example: 100,000 VMs attach and leave at once. Of ``attach`` and ``gone`` 20 a second are kept, until they
fill the log; the ``stall`` of an hour ago is still there.
"""

import json
import logging
import os
import stat
import time
from collections import deque
from contextlib import suppress

from supervisor.base.logs import log, record_of

FILE = "events.ring"
MOST = 1000
SLOT_BYTES = 512
"""Room for a sentence of three lines and its fields; longer messages are cut."""
BURST = 20
BURST_S = 1.0
MANY = 200
"""Events in one answer: 100 KiB at most."""

Event = dict[str, object]


class EventLog(logging.Handler):
    """The events of one switch; a handler of the log from construction to ``close``."""

    def __init__(self, path: str) -> None:
        """Read the events of the supervisor before, and receive the log from now on."""
        super().__init__(logging.INFO)
        self._path = path
        self._events: dict[int, tuple[int, Event]] = {}
        """Sequence to slot and record."""
        self._kinds: dict[str, deque[int]] = {}
        """The sequences of each kind, the oldest first."""
        self._bursts: dict[str, tuple[float, int]] = {}
        """For each kind: when the counted second began, and the number of events in it."""
        self._free: deque[int] = deque(range(MOST))
        self._sequence = time.time_ns() // 1_000_000
        self._file = -1
        why = ""
        try:
            self._file = _open(path)
            self._restore()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
        log.addHandler(self)
        if why:
            log.warning("events will not outlive this supervisor: cannot use %s: %s", path, why.lower())

    @property
    def newest(self) -> int:
        """The sequence of the newest event; the next one's is greater."""
        return self._sequence

    def kept(self) -> list[Event]:
        """Return all events, the oldest first."""
        return [event for _, event in self._events.values()]

    def after(self, sequence: int, since_s: float | None = None) -> tuple[list[Event], int]:
        """Return the oldest events after ``sequence`` and the sequence to go on from.

        At most MANY events, and none older than ``since_s`` seconds, if that is given.
        """
        if sequence > self._sequence:
            sequence = 0
        earliest = 0.0 if since_s is None else time.time() - since_s
        found = [
            event
            for number, (_, event) in self._events.items()
            if number > sequence and _number(event["time"]) >= earliest
        ][:MANY]
        return found, int(_number(found[-1]["sequence"])) if found else self._sequence

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the log."""
        event = record_of(record)
        kind = str(event["event"])
        now = time.monotonic()
        began, count = self._bursts.get(kind, (0.0, 0))
        if now - began >= BURST_S:
            began, count = now, 0
        self._bursts[kind] = began, count + 1
        if count >= BURST and self._kinds.get(kind):
            self._count_on(self._kinds[kind][-1])
            return
        self._sequence += 1
        if not self._free:
            self._make_room()
        self._put(self._sequence, self._free.popleft(), {"sequence": self._sequence} | event)

    def end(self, *, keep: bool) -> None:
        """Stop receiving the log; remove the file unless the next supervisor needs it."""
        log.removeHandler(self)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if not keep:
                with suppress(OSError):
                    os.unlink(self._path)

    def _count_on(self, sequence: int) -> None:
        slot, event = self._events[sequence]
        event["more"] = int(_number(event.get("more", 0))) + 1
        self._write(slot, event)

    def _make_room(self) -> None:
        most = max(self._kinds.values(), key=len)
        slot, _ = self._events.pop(most.popleft())
        self._free.append(slot)

    def _put(self, sequence: int, slot: int, event: Event) -> None:
        event = _cut(event)
        self._events[sequence] = slot, event
        self._kinds.setdefault(str(event["event"]), deque()).append(sequence)
        self._write(slot, event)

    def _write(self, slot: int, event: Event) -> None:
        line = _line(event)
        shown = line if len(line) <= SLOT_BYTES else b""
        with suppress(OSError):  # there is no file, or it was emptied and the disk is full
            os.pwrite(self._file, shown.ljust(SLOT_BYTES, b"\0"), slot * SLOT_BYTES)

    def _restore(self) -> None:
        found: dict[int, tuple[int, Event]] = {}
        for slot in range(MOST):
            data = os.pread(self._file, SLOT_BYTES, slot * SLOT_BYTES).rstrip(b"\0")
            with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                event = json.loads(data)
                if _number(event["time"]) >= 0 and isinstance(event["event"], str):
                    found[int(_number(event["sequence"]))] = slot, event
        for sequence, (slot, event) in sorted(found.items()):
            self._events[sequence] = slot, event
            self._kinds.setdefault(str(event["event"]), deque()).append(sequence)
            self._sequence = sequence
        used = {slot for slot, _ in found.values()}
        self._free = deque(slot for slot in range(MOST) if slot not in used)


def _number(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError("no number")
    return value


def _line(event: Event) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _cut(event: Event) -> Event:
    """Return an event whose line fits a slot: a message that is too long loses its end, then the reason."""
    for field in ("message", "reason"):
        text = event.get(field)
        excess = len(_line(event)) - SLOT_BYTES
        if excess > 0 and isinstance(text, str):
            keep = max(0, len(text) - excess - len("…".encode()))  # a character has at least one byte
            event = event | {field: text[:keep] + "…"}
    return event


def _open(path: str) -> int:
    """Open the file, at its full size. Raises OSError; ValueError if it is not a file of ours."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        found = os.fstat(file)
        size = MOST * SLOT_BYTES
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not ours or found.st_size > size or found.st_size % SLOT_BYTES:
            raise ValueError("it is not a file of a supervisor; move it away")
        os.posix_fallocate(file, 0, size)
    except BaseException:
        os.close(file)
        raise
    return file

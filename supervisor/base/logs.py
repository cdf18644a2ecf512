"""The log on stderr, as text or as JSON: each line is an event.

``say`` gives an event its kind and fields (``port``, ``name``, ``mac``, ``reason``, figures); a line without
them is of the kind ``message``. The JSON of a line and the output of ``supervisor events`` are the same
record (``record_of``), which ``events`` keeps.

Lines that an outsider can cause at will (garbage on a socket, refused connections) go through a ``Throttle``:
at most one line a second of each kind, with the number that it stands for. Workers inherit the same stderr
and write to it.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from supervisor.base.log_writer import LogWriter

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""Level names, for operators and for the other modules."""
FORMATS = ("text", "json")
THROTTLE_S = 1.0
FLUSH_S = 1.0
"""How long the process waits at its end for unwritten lines."""
MESSAGE = "message"
"""The kind of a line without a kind of its own."""

log = logging.getLogger("supervisor")

_caller: ContextVar[dict[str, object] | None] = ContextVar("caller", default=None)


def say(event: str, text: str, level: str = "info", **fields: object) -> None:
    """Log an event: ``text`` is the sentence for people, ``fields`` are the figures."""
    known = {name: value for name, value in fields.items() if value is not None}
    caller = _caller.get()
    if caller is not None:
        known["by"] = caller
    log.log(LEVELS[level], "%s", text, extra={"event": event, "fields": known})


@contextmanager
def asked_by(caller: dict[str, object] | None) -> Iterator[None]:
    """Add the user that asked as ``by`` to the events logged meanwhile; None if unknown."""
    before = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(before)


def caller() -> dict[str, object] | None:
    """Return the user that asks now (``asked_by``); None if it is unknown, or no command runs."""
    return _caller.get()


def record_of(line: logging.LogRecord) -> dict[str, object]:
    """Return a line as plain data: ``time`` (seconds since 1970), ``level``, ``pid``, ``event``, ``message``.

    The fields of the event follow.
    """
    record = {
        "time": round(line.created, 6),
        "level": line.levelname.lower(),
        "pid": line.process,
        "event": getattr(line, "event", MESSAGE),
        "message": line.getMessage(),
    }
    return record | getattr(line, "fields", {})


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = record_of(record)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Queued(logging.Handler):
    """Formats in the loop and writes in a thread, so that an unread log blocks nothing."""

    def __init__(self, fd: int) -> None:
        self.writer = LogWriter(fd)
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.writer.put(self.format(record))

    def flush(self) -> None:
        """Wait for the thread, for a moment."""
        self.writer.flush(FLUSH_S)


def lost() -> int:
    """Return how many lines were lost because the log was not read."""
    return sum(handler.writer.lost for handler in log.handlers if isinstance(handler, _Queued))


def set_up(level: str, form: str) -> None:
    """Log to stderr from now on; ``level`` is one of LEVELS, ``form`` one of FORMATS.

    Lines below ``level`` are still events, from ``info`` on.
    """
    handler = _Queued(sys.stderr.fileno())
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.setLevel(LEVELS[level])
    log.handlers[:] = [handler]
    log.setLevel(min(LEVELS[level], logging.INFO))
    log.propagate = False


class Throttle:
    """Limits frequent lines to one a second of each kind. Kinds are a few fixed words."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._kept_back: dict[str, int] = {}

    def warning(self, kind: str, text: str, event: str = MESSAGE, **fields: object) -> None:
        """Log a line, or count it if one of its kind was logged less than a second ago."""
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
            return
        self._next[kind] = now + THROTTLE_S
        more = self._kept_back.pop(kind, 0)
        text += f" ({more} more like it since the last such line)" if more else ""
        say(event, text, "warning", **fields, more=more or None)

"""One line for each thing worth saying, on stderr, as text or as JSON: the edge of the stream of events.

A line is an event: ``say`` gives it a kind and fields (``port``, ``name``, ``mac``, ``reason``, figures), and
a line without them is of the kind ``message``. The JSON of a line and what ``supervisor events`` shows of it
are the same record (``record_of``), which ``events`` keeps.

What an outsider can cause at will (garbage on a socket, connections that are refused) goes through a
``Throttle``: at most one line a second for each kind of thing, which says how many it stands for. Workers
write to the same stderr, which they inherit.
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
"""By the words that operators and the other rooms use."""
FORMATS = ("text", "json")
THROTTLE_S = 1.0
FLUSH_S = 1.0
"""How long the end of the process waits for lines that are not written yet."""
MESSAGE = "message"
"""The kind of a line that was given none."""

log = logging.getLogger("supervisor")

_caller: ContextVar[dict[str, object] | None] = ContextVar("caller", default=None)


def say(event: str, text: str, level: str = "info", **fields: object) -> None:
    """Say that ``event`` has happened; ``text`` is the sentence for people, ``fields`` are its figures."""
    known = {name: value for name, value in fields.items() if value is not None}
    caller = _caller.get()
    if caller is not None:
        known["by"] = caller
    log.log(LEVELS[level], "%s", text, extra={"event": event, "fields": known})


@contextmanager
def asked_by(caller: dict[str, object] | None) -> Iterator[None]:
    """Have what is said meanwhile carry who asked for it as ``by``; None: not known."""
    before = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(before)


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
    """Formats in the loop and has a thread write, so that a log that is not read stops nothing."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.writer = LogWriter(fd)

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

    What is below ``level`` is an event all the same, from ``info`` on.
    """
    handler = _Queued(sys.stderr.fileno())
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.setLevel(LEVELS[level])
    log.handlers[:] = [handler]
    log.setLevel(min(LEVELS[level], logging.INFO))
    log.propagate = False


class Throttle:
    """Lines of which there may be too many: one a second for each kind. Kinds are a few fixed words."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._kept_back: dict[str, int] = {}

    def warning(self, kind: str, text: str, event: str = MESSAGE, **fields: object) -> None:
        """Say it, unless something of that kind was said less than a second ago; then count it."""
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
            return
        self._next[kind] = now + THROTTLE_S
        more = self._kept_back.pop(kind, 0)
        text += f" ({more} more like it since the last such line)" if more else ""
        say(event, text, "warning", **fields, more=more or None)

"""One line for each thing worth saying, on stderr, as text or as JSON.

What an outsider can cause at will (garbage on a socket, connections that are refused) goes through a
``Throttle``: at most one line a second for each kind of thing, which says how many it stands for. Workers
write to the same stderr, which they inherit.
"""

import json
import logging
import sys
import time

from supervisor.base.log_writer import LogWriter

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""By the words that operators and the other rooms use."""
FORMATS = ("text", "json")
THROTTLE_S = 1.0
FLUSH_S = 1.0
"""How long the end of the process waits for lines that are not written yet."""

log = logging.getLogger("supervisor")


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
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
    """Log to stderr from now on; ``level`` is one of LEVELS, ``form`` one of FORMATS."""
    handler = _Queued(sys.stderr.fileno())
    handler.setFormatter(_Json() if form == "json" else _Text())
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False


class Throttle:
    """Lines of which there may be too many: one a second for each kind. Kinds are a few fixed words."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._kept_back: dict[str, int] = {}

    def warning(self, kind: str, text: str) -> None:
        """Say it, unless something of that kind was said less than a second ago; then count it."""
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
            return
        self._next[kind] = now + THROTTLE_S
        more = self._kept_back.pop(kind, 0)
        log.warning("%s%s", text, f" ({more} more like it since the last such line)" if more else "")

"""Save operators' changes (attachments, forwards, zones) in one file, for the next supervisor.

Theory of operation
-------------------
A part calls ``put`` before it answers an operator with "done", so the change survives a ``kill -9`` at any
instant. The file is written beside the old one and renamed over it, so it is always whole. A clean end
removes it; the next switch then begins with its command line alone. Nothing is synced to a disk: the file has
to survive the end of a process, and a runtime directory does not outlive the machine.

A file is read only if a predecessor left this directory (``RuntimeDir``) and the file has the form of ours.
Any other file is renamed, with a line in the log, and kept: Bulkhead deletes only its own files.

If the disk is full, the command is still carried out. The log says that the change will not outlive this
supervisor, and the write is tried again every ``RETRY_S``.

    {"bulkhead": 1, "parts": {"attachments": [...], "gateway": {"forward": [...], ...}}}
"""

import contextlib
import json
import os
import stat
import time
from collections.abc import Mapping
from typing import cast

from forwarder.errors import LocalError
from supervisor.base.logs import log

FILE = "switch.state"
VERSION = 1
MOST_BYTES = 4 << 20
"""Some hundred bytes for each possible port, and 64 KiB for a gateway."""

RETRY_S = 1.0


class SavedState:
    """The file and its parts: each part is plain data that only its owner interprets."""

    def __init__(self, path: str, *, inherit: bool) -> None:
        """Read the predecessor's file if there was one (``inherit``). Raises LocalError."""
        self._path = path
        self._retry_at = float("inf")
        self._parts: dict[str, object] = {}
        try:
            self._parts = dict(_read(path, inherit=inherit))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            _set_aside(path, error)

    def get(self, part: str) -> object:
        """Return the value that was put last, by this supervisor or the one before; None if there is none."""
        return self._parts.get(part)

    def put(self, part: str, value: object) -> None:
        """Keep ``value`` from now on."""
        if self._parts.get(part) != value:
            self._parts[part] = value
            self._write()

    def tick(self, now: float) -> None:
        """Try a failed write again."""
        if now >= self._retry_at:
            self._write()

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._retry_at

    def close(self, *, keep: bool) -> None:
        """Remove the file, unless the next supervisor is to take over."""
        if not keep:
            for path in (self._path, f"{self._path}.new"):  # the latter is of a write that failed
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def _write(self) -> None:
        data = json.dumps({"bulkhead": VERSION, "parts": self._parts}).encode()
        beside = f"{self._path}.new"
        first = self._retry_at == float("inf")
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)  # left by a supervisor that was killed as it wrote
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(file, "wb") as out:
                out.write(data)
            os.rename(beside, self._path)
            self._retry_at = float("inf")
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY_S
            if first:
                log.error(
                    "what was added at run time would not outlive this supervisor: cannot write %s: %s",
                    self._path,
                    (error.strerror or str(error)).lower(),
                )


def _read(path: str, *, inherit: bool) -> Mapping[str, object]:
    """Return the parts. Raises OSError; ValueError if this is not a file of ours."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as source:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise ValueError("it is not a file of ours")
        data = source.read(MOST_BYTES + 1)
    if not inherit:
        raise ValueError("no supervisor has left this directory unfinished")
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES} bytes")
    whole = json.loads(data)
    if not isinstance(whole, dict) or whole.get("bulkhead") != VERSION:
        raise ValueError("it is of another program or version")
    parts = whole.get("parts")
    if not isinstance(parts, dict):
        raise ValueError("it has no parts")
    return cast(Mapping[str, object], parts)


def _set_aside(path: str, why: Exception) -> None:
    aside = f"{path}.refused"
    try:
        os.rename(path, aside)
    except OSError as error:
        raise LocalError(f"{path} is in the way ({why}): {error.strerror}; move it away") from None
    log.warning(
        "%s cannot be used (%s) and is set aside as %s; "
        "forwards, names and listeners that were added at run time are forgotten",
        path,
        why,
        aside,
    )

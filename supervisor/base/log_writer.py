"""Write the log to stderr by a thread with a bounded queue, so that a full pipe does not block the loop.

Theory of operation. stderr may be a pipe that no process reads, or a terminal that is held by ^S. A write to
it then blocks, and would block the supervisor's only loop. So the loop puts lines into a queue, and a thread
writes them. When ``LINES`` wait, further ones are lost and counted. ``status`` shows the count; it is also
written as a line when the reader goes on. A failed write (the disk is full, the reader has gone) loses its
line, which is counted, too.

The descriptor is not made non-blocking, since that would apply to every process that shares it, such as the
operator's shell. Only the thread blocks, and the process can end in spite of it.

Example: stderr is a pipe of 64 KiB that is never read. Some 700 lines fit, 1000 more wait, the rest is
counted. VMs attach and commands are answered meanwhile.
"""

import os
import threading
import time
from collections import deque

from forwarder.errors import LocalError
from forwarder.process.limits import NO_THREAD

LINES = 1000
"""Lines that may wait: more than a switch of 250 VMs writes when all of them come or go at once."""


class LogWriter:
    """Writes lines to a descriptor.

    The loop calls ``put`` and ``lost``; everything else runs in the thread.
    """

    def __init__(self, fd: int) -> None:
        """Begin; the caller closes ``fd``. Raises LocalError: out of threads."""
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._writing = False
        self._lost = 0
        self._said = 0
        try:
            threading.Thread(target=self._run, name="log", daemon=True).start()
        except RuntimeError:
            raise LocalError(NO_THREAD) from None

    @property
    def lost(self) -> int:
        """How many lines were lost since the start."""
        return self._lost

    def put(self, line: str) -> None:
        """Queue ``line`` for the thread, or count it as lost."""
        with self._changed:
            if len(self._lines) >= LINES:
                self._lost += 1
                return
            self._lines.append(f"{line}\n".encode("utf-8", "backslashreplace"))
            self._changed.notify_all()

    def flush(self, patience_s: float) -> None:
        """Wait until everything is written, at most that long."""
        deadline = time.monotonic() + patience_s
        with self._changed:
            while (self._lines or self._writing) and deadline > time.monotonic():
                self._changed.wait(deadline - time.monotonic())

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
                line = self._lines.popleft()
                missing, self._said = self._lost - self._said, self._lost
                self._writing = True
            if missing:
                line += b"%d lines of the log were lost: it was not read\n" % missing
            written = _write(self._fd, line)
            with self._changed:
                self._writing = False
                if not written:
                    self._lost += 1
                self._changed.notify_all()


def _write(fd: int, line: bytes) -> bool:
    while line:
        try:
            line = line[os.write(fd, line) :]
        except OSError:
            return False
    return True

"""The exceptions, by the side at fault: ours, the operator's, or another process's.

``LocalError`` is raised for a request of this side, ``PeerError`` for a message of another process.
The text is one line that names the thing and says what to do. Traffic never raises: a bad frame is
a counter.
"""

import errno
import os

_LIMITS = {
    errno.EAGAIN: "processes (ulimit -u)",
    errno.EMFILE: "open files (ulimit -n)",
    errno.ENFILE: "open files of the machine (sysctl fs.file-max)",
    errno.ENOMEM: "memory (ulimit -v, -d)",
    errno.EFBIG: "a file's size (ulimit -f)",
}
"""What a call that makes something runs into."""


class BulkheadError(Exception):
    """Root of every error that Bulkhead raises on purpose; never raised itself."""


class LocalError(BulkheadError):
    """A request of the operator, or of code on this side, that cannot be done."""


class UsageError(LocalError):
    """A mistake in the operator's words, whatever the state of the machine: exit code 2."""


class PeerError(BulkheadError):
    """A message of another process breaks the protocol; the receiver goes on."""


class OtherVersionError(PeerError):
    """A message is of another version of the protocol."""


def shortage(error: OSError | MemoryError) -> str:
    """Return what a call that makes something says, and the limit to raise, if one may be the cause."""
    number = error.errno if isinstance(error, OSError) else errno.ENOMEM
    why = os.strerror(number) if number is not None else str(error)
    return f"{why}; raise the limit of {_LIMITS[number]}" if number in _LIMITS else why

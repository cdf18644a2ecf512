"""The exceptions, by the side at fault: ours, the operator's, or another process's.

``LocalError`` is raised for a request of this side, ``PeerError`` for a message of another process.
The text is one line that names the thing and says what to do. Traffic never raises: a bad frame is
a counter.
"""


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

"""Errors by whose fault they are, from one root.

``LocalError`` is raised for what this side asked for, ``PeerError`` for what another process sent.
The text is one line that names the thing and says what to do. Traffic never raises: a bad frame is
a counter.
"""


class BulkheadError(Exception):
    """Root of every error that Bulkhead raises on purpose; never raised itself."""


class LocalError(BulkheadError):
    """The operator, or code on this side, asked for something that cannot be done."""


class UsageError(LocalError):
    """What the operator has written cannot be, whatever the state of the machine: exit code 2."""


class PeerError(BulkheadError):
    """What arrived from another process breaks the protocol; the sender is at fault, the receiver goes on."""

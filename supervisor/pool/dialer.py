"""Dial workers without a channel: those of a dead supervisor, and those whose channel has ended.

A worker in its cell cannot connect to a socket. It listens at one (``rendezvous.CHANNEL``) and accepts only
the process that holds the lock of the runtime directory. The dialer tries again every ``RETRY_S`` until its
caller stops it.
"""

from collections.abc import Callable

from forwarder.channel import Channel
from forwarder.names import Identity
from forwarder.rendezvous import CHANNEL, worker_path

RETRY_S = 0.05
"""A working worker notices within a turn that its channel has ended, and then begins to listen."""


class Dialer:
    """The workers to dial."""

    def __init__(self, runtime_dir: str, connected: Callable[[Identity, Channel], None]) -> None:
        """Call ``connected`` with a channel and its process, as the kernel identifies it."""
        self._runtime_dir = runtime_dir
        self._connected = connected
        self._wanted: dict[Identity, float] = {}
        """When to try next."""

    def call(self, identity: Identity, now: float) -> None:
        """Dial this worker from the next ``tick`` on."""
        self._wanted[identity] = now

    def forget(self, identity: Identity) -> None:
        """Stop trying."""
        self._wanted.pop(identity, None)

    def tick(self, now: float) -> None:
        """Dial the workers that are due."""
        for identity in [each for each, due in self._wanted.items() if due <= now]:
            try:
                file = worker_path(self._runtime_dir, identity.pid, CHANNEL)
                channel = Channel.connect(file, identity.pid)
            except OSError:
                self._wanted[identity] = now + RETRY_S
            else:
                del self._wanted[identity]
                self._connected(identity, channel)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min(self._wanted.values(), default=float("inf"))

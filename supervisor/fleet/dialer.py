"""Goes to workers that have no channel: those of a dead supervisor, and those whose channel has ended.

A worker cannot go anywhere: it listens at a door (``rendezvous.CHANNEL``) and lets in the process that holds
the lock of the runtime directory. It is tried again every ``RETRY_S``; whoever called says when to stop.
"""

from collections.abc import Callable

from forwarder.channel import Channel
from forwarder.names import Identity
from forwarder.rendezvous import CHANNEL, worker_path

RETRY_S = 0.05
"""A worker that is at work notices within a turn that its channel has ended, and opens its door then."""


class Dialer:
    """The workers that are to be reached."""

    def __init__(self, runtime_dir: str, connected: Callable[[Identity, Channel], None]) -> None:
        """Take who is called with a channel to a process, by the kernel's word."""
        self._runtime_dir = runtime_dir
        self._connected = connected
        self._wanted: dict[Identity, float] = {}
        """When to try next."""

    def call(self, identity: Identity, now: float) -> None:
        """Get a channel to that worker, from the next ``tick`` on."""
        self._wanted[identity] = now

    def forget(self, identity: Identity) -> None:
        """Stop trying."""
        self._wanted.pop(identity, None)

    def tick(self, now: float) -> None:
        """Try those that are due."""
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

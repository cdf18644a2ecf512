"""Listeners of the host for tests of the gateway's parts: made as the supervisor makes them, and at once."""

from __future__ import annotations

import itertools

from gateway.listeners import Listener
from gateway.relay.forwards import Forward
from supervisor.gateway.listening import Listenings, Place


class HostListeners:
    """What the supervisor would have made."""

    def __init__(self) -> None:
        self._listenings = Listenings(lambda path: True)
        self._numbers = itertools.count(1)

    def at(self, forward: Forward) -> Listener:
        """Return the listener of a forward. Raises LocalError."""
        host = "" if forward.kind == "unix" else str(forward.host)
        return self._open(Place(forward.kind, host, forward.port, forward.path))

    def at_path(self, path: str) -> Listener:
        """Return a unix socket. Raises LocalError."""
        return self._open(Place("unix", path=path))

    def _open(self, place: Place) -> Listener:
        number = next(self._numbers)
        sock, port = self._listenings.open(number, place)

        def close() -> None:
            sock.close()
            self._listenings.close(number)

        return Listener(sock, port, close, number)

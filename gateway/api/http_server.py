"""The listener of the HTTP API: a unix socket of the host, in the gateway's loop.

The socket is 0600 and the supervisor makes it; the kernel admits only its owner and root. Each client
is a ``Connection``, which knows the protocol and how long its steps may take.

Bounds: ``CONNECTIONS`` at once. Beyond that, the client that was silent for longest makes room for the next
one; a client that waits for our answer does not count as silent. A socket that was handed over is not counted
any more.
"""

import socket
import time

from forwarder.acceptor import Acceptor, Pauses
from forwarder.loop import Loop
from gateway.api import CONNECTIONS
from gateway.api.http_connection import Connection, Handler, Phase
from gateway.listeners import Listener


class HttpServer:
    """The listener and its connections."""

    def __init__(self, loop: Loop, listener: Listener, handler: Handler) -> None:
        """Serve at a listener, which is this object's from now on."""
        self._loop = loop
        self._handler = handler
        self._connections: set[Connection] = set()
        self._listener = listener
        self._pauses = Pauses(time.monotonic)
        self._acceptor = Acceptor(loop, listener.sock, self._on_connection, self._pauses)

    @property
    def listener(self) -> int:
        """The number of its listener."""
        return self._listener.number

    def move(self, listener: Listener) -> None:
        """Serve at another listener from now on."""
        self._acceptor.move_to(listener.sock)
        before, self._listener = self._listener, listener
        before.close()

    def tick(self, now: float) -> None:
        """End slow connections, and accept again after a pause."""
        for connection in list(self._connections):
            connection.tick(now)
        self._pauses.tick(now)

    def deadline(self) -> float | None:
        """When to call ``tick``, in monotonic seconds; None while nothing is due."""
        dues = [connection.due for connection in self._connections]
        resume_at = self._pauses.deadline()
        return min([*dues, *([] if resume_at is None else [resume_at])], default=None)

    def close(self) -> None:
        """Close everything and remove the socket."""
        for connection in list(self._connections):
            connection.close()
        self._acceptor.close()
        self._listener.close()

    def _on_connection(self, sock: socket.socket) -> None:
        if not self._has_room():
            sock.close()
            return
        self._connections.add(Connection(self._loop, sock, self._handler, self._connections.discard))

    def _has_room(self) -> bool:
        """Make room for one more client; return False if all clients wait for our answers."""
        if len(self._connections) < CONNECTIONS:
            return True
        silent = [each for each in self._connections if each.phase is not Phase.ANSWER]
        if silent:
            min(silent, key=lambda connection: connection.heard_at).close()
        return bool(silent)

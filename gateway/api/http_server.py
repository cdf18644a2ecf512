"""The listener of the HTTP API: a unix socket of the host, in the gateway's loop.

The socket is 0600, and its peer must be of our own user or root. Each client is a ``Connection``, which
knows the protocol and how long its steps may take.

Bounds: ``CONNECTIONS`` at once. Where there are so many, the client that has been silent for longest makes
room for the next one; one that waits for an answer of ours is not silent. A socket that was handed over does
not count here any more. Without a descriptor to accept with, the listener pauses for ``PAUSE_S``; the clients
wait in the kernel's queue.
"""

import os
import socket
import time
from contextlib import suppress

from forwarder.channel import credentials_of
from forwarder.errors import LocalError
from forwarder.loop import Loop
from gateway.api.http_connection import Connection, Handler, Phase

CONNECTIONS = 64
PAUSE_S = 1.0
"""Descriptors come back when connections end, which takes about that long."""


class HttpServer:
    """The listener and its connections."""

    def __init__(self, loop: Loop, path: str, handler: Handler) -> None:
        """Listen. Raises LocalError."""
        self._loop = loop
        self._handler = handler
        self._path = path
        self._connections: set[Connection] = set()
        self._resume_at: float | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            _bind(self._socket, path)
        except OSError as error:
            self._socket.close()
            raise LocalError(f"services: cannot listen at {path}: {error.strerror}; choose another") from None
        self._listen()

    def tick(self, now: float) -> None:
        """Give up what takes too long, and accept again after a pause."""
        for connection in list(self._connections):
            connection.tick(now)
        if self._resume_at is not None and self._resume_at <= now:
            self._listen()

    def deadline(self) -> float | None:
        """When to call ``tick``, in monotonic seconds; None while there is nothing to wait for."""
        dues = [connection.due for connection in self._connections]
        if self._resume_at is not None:
            dues.append(self._resume_at)
        return min(dues, default=None)

    def close(self) -> None:
        """Close everything and remove the socket."""
        for connection in list(self._connections):
            connection.close()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    def _listen(self) -> None:
        self._resume_at = None
        self._loop.watch(self._socket.fileno(), lambda _: self._accept())

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor or no memory is left
            self._loop.unwatch(self._socket.fileno())
            self._resume_at = time.monotonic() + PAUSE_S
            return
        if not credentials_of(sock).are_ours or not self._has_room():
            sock.close()
            return
        sock.setblocking(False)
        self._connections.add(Connection(self._loop, sock, self._handler, self._connections.discard))

    def _has_room(self) -> bool:
        """Make room for one more if there is none; False if all clients wait for us."""
        if len(self._connections) < CONNECTIONS:
            return True
        silent = [each for each in self._connections if each.phase is not Phase.ANSWER]
        if silent:
            min(silent, key=lambda connection: connection.heard_at).close()
        return bool(silent)


def _bind(sock: socket.socket, path: str) -> None:
    """Bind with mode 0600 from the first moment, over a socket that nobody listens at. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except FileNotFoundError:
            pass
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)
    sock.listen(CONNECTIONS)

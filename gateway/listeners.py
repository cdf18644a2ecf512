"""Sockets of the host at which the gateway is to listen: asked of the supervisor, since a cell forbids more.

Questions have numbers, and so have the listeners that come of them: a listener that is closed is named to the
supervisor by its number, and its file, if it has one, is removed there.
"""

import socket
from collections.abc import Callable
from typing import NamedTuple

from forwarder.errors import LocalError, PeerError
from forwarder.future import Future
from forwarder.messages import Command
from gateway.relay.forwards import Forward


class Listener(NamedTuple):
    """A socket that listens on the host, or is bound for datagrams."""

    sock: socket.socket
    port: int
    """Its port, which the kernel may have chosen; unix: 0."""
    close: Callable[[], None]
    """Closes it and removes its file."""
    number: int
    """Its name between the gateway and the supervisor."""


Outcome = Listener | LocalError


def place_of(forward: Forward) -> dict[str, object]:
    """Return where the host is to listen for a forward, as the supervisor reads it."""
    if forward.kind == "unix":
        return {"kind": "unix", "path": forward.path}
    return {"kind": forward.kind, "host": str(forward.host), "port": forward.port}


class Listeners:
    """The questions and the listeners of one gateway."""

    def __init__(self, send: Callable[[Command], None]) -> None:
        """``send`` sends to the supervisor."""
        self._send = send
        self.when_deleted: Callable[[int], None] = lambda _: None
        """Called with the number of a listener whose file was deleted: no client reaches it any more."""
        self._number = 0
        self._asked: dict[int, Future[Outcome]] = {}

    def at(self, forward: Forward) -> Future[Outcome]:
        """Ask for the listener of a forward."""
        return self._ask(place_of(forward))

    def at_path(self, path: str) -> Future[Outcome]:
        """Ask for a unix socket of streams."""
        return self._ask({"kind": "unix", "path": path})

    def made(self, number: int, port: int, descriptor: int) -> None:
        """Take a listener. Raises PeerError: it was not asked for."""
        sock = socket.socket(fileno=descriptor)
        asked = self._asked.pop(number, None)
        if asked is None:
            sock.close()
            raise PeerError("a listener that was not asked for")
        sock.setblocking(False)
        asked.set_result(Listener(sock, port, lambda: self._close(number, sock), number))

    def refused(self, number: int, why: str) -> None:
        """Take a refusal; or, of a listener that was made, that its file was deleted."""
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.set_result(LocalError(why))
        else:
            self.when_deleted(number)

    def _ask(self, place: dict[str, object]) -> Future[Outcome]:
        self._number += 1
        future = self._asked[self._number] = Future()
        self._send(Command("listen", {"number": self._number, **place}))
        return future

    def _close(self, number: int, sock: socket.socket) -> None:
        sock.close()
        self._send(Command("unlisten", {"number": number}))

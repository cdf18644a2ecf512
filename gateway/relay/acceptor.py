"""Accept connections for the relay: the core does it, several with one call, and gives their addresses."""

import socket
from collections.abc import Callable

from forwarder._core import Splices
from forwarder.acceptor import Accepting, Pauses
from gateway.poller import Poller

Accepted = Callable[[int, bytes, bytes], None]
"""Takes a non-blocking socket's descriptor, which is its own from then on, and the addresses of both ends as
``Splices.accept`` gives them."""


class Acceptor(Accepting):
    """Accepts from one listening socket."""

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        accepted: Accepted,
        pauses: Pauses,
        core: Splices,
        *,
        with_own: bool = False,
    ) -> None:
        """Begin to accept; ``with_own``: the own addresses are wanted, too."""
        self._core = core
        self._accepted = accepted
        self._with_own = with_own
        super().__init__(poller, sock, pauses)

    def _on_readable(self, events: int) -> None:
        try:
            clients = self._core.accept(self._sock.fileno(), self._with_own)
        except OSError as error:
            self._starve(error)
            return
        for descriptor, peer, own in clients:
            try:
                self._accepted(descriptor, peer, own)
            except Exception:
                self._watcher.failed()

"""Listeners of the gateway: made with errors a person can act on, and accepted from without ever spinning.

``listen`` takes what a forward says and returns the socket, or raises one line with cause and remedy. A unix
socket is for its owner alone, and one that a killed gateway left behind is taken over, any other is not.

A process without descriptors cannot accept, and the kernel goes on saying that it should. ``Listener`` then
pauses for ``PAUSE_S``; the clients wait in the kernel's queue. ``Pauses`` knows those that do, so that time
passes at no cost for all the others, of which there may be a thousand.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable

from forwarder.errors import LocalError
from gateway.relay.forwards import Forward
from gateway.relay.poller import READ, Poller
from gateway.relay.tcp import forgo_pacing

PAUSE_S = 1.0
BACKLOG = 4096
"""Connections that the kernel completes before they are accepted (it cuts this to net.core.somaxconn)."""

BURST = 64
"""Connections accepted before others get their turn."""

_ADVICE = {
    errno.EADDRINUSE: "another program listens there; end it or choose another port",
    errno.EADDRNOTAVAIL: "this host does not have that address; choose one of its own, or 0.0.0.0 for all",
    errno.EACCES: "not allowed; choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start",
    errno.ENOENT: "the directory does not exist; make it first",
    errno.ENOTDIR: "the directory does not exist; make it first",
}
_LATER = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Accepted = Callable[[socket.socket], None]


def listen(forward: Forward) -> tuple[socket.socket, Forward]:
    """Return the socket of ``forward``, and the forward with the port that it really has.

    Raises LocalError: it cannot be had, and why.
    """
    sock: socket.socket | None = None
    try:
        if forward.kind == "unix":
            return _listen_unix(forward), forward
        family = socket.AF_INET if forward.host.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM if forward.kind == "tcp" else socket.SOCK_DGRAM)
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if forward.kind == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(forward.host), forward.port))
        if forward.kind == "tcp":
            if forward.host.is_loopback:
                forgo_pacing(sock)
            sock.listen(BACKLOG)
        return sock, forward._replace(port=sock.getsockname()[1])
    except OSError as error:
        if sock is not None:
            sock.close()
        advice = _ADVICE.get(error.errno or 0, error.strerror)
        raise LocalError(f"cannot listen at {forward.near}: {advice}") from None


def unlisten(forward: Forward, sock: socket.socket) -> None:
    """Close a listener, and remove its file."""
    sock.close()
    if forward.kind == "unix":
        with contextlib.suppress(OSError):
            os.unlink(forward.path)


def _listen_unix(forward: Forward) -> socket.socket:
    _remove_stale(forward)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.setblocking(False)
        sock.bind(forward.path)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _remove_stale(forward: Forward) -> None:
    """Remove a socket that nobody listens at any more. Raises LocalError: something else is there."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(forward.path).st_mode)
    except FileNotFoundError:
        return
    if is_socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(forward.path) == errno.ECONNREFUSED:
                os.unlink(forward.path)
                return
    what = "another program listens there" if is_socket else "there is a file"
    raise LocalError(f"cannot listen at {forward.near}: {what}; remove it or choose another path")


class Pauses:
    """The listeners that have paused, the first to go on first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._ends: dict[Listener, float] = {}

    def begin(self, listener: "Listener") -> None:
        """Have ``listener`` go on in ``PAUSE_S``."""
        self._ends[listener] = self._clock() + PAUSE_S

    def cancel(self, listener: "Listener") -> None:
        """Forget ``listener``, which may not have paused."""
        self._ends.pop(listener, None)

    def tick(self, now: float) -> None:
        """Let those go on whose time has come."""
        while (end := self.deadline()) is not None and end <= now:
            listener = next(iter(self._ends))
            del self._ends[listener]
            listener.resume()

    def deadline(self) -> float | None:
        """When to call ``tick``."""
        return next(iter(self._ends.values()), None)


class Listener:
    """Accepts from a listening socket, and pauses when it has to."""

    def __init__(self, poller: Poller, sock: socket.socket, accepted: Accepted, pauses: Pauses) -> None:
        """Hand each connection to ``accepted``, which then owns it."""
        self._poller = poller
        self._sock = sock
        self._accepted = accepted
        self._pauses = pauses
        sock.setblocking(False)
        self.resume()

    def resume(self) -> None:
        """Go on after a pause."""
        self._poller.watch(self._sock.fileno(), self._event, READ)

    def close(self) -> None:
        """Stop to accept; the socket stays its owner's."""
        self._pauses.cancel(self)
        self._poller.unwatch(self._sock.fileno())

    def _event(self, _: int) -> None:
        for _ in range(BURST):
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _LATER:
                    self._poller.unwatch(self._sock.fileno())
                    self._pauses.begin(self)
                    return
                continue
            self._accepted(sock)

"""Connections of two sockets each, joined in the kernel by the core (``forwarder/_core/relay/splices.h``).

The core moves the bytes and knows the states of both directions. It reports a connection that is over, and
one of which an end has failed. Then the other end still gets the bytes that the failed end had sent:
``settle`` asks whether it has acknowledged them, and after ``LINGER_S`` the connection is reset anyway.

A pipe holds 256 KiB by measurement, loopback TCP through one relay process that competes for two cores:
64 KiB 9.4 Gbit/s, 128 KiB 12.7, 256 KiB 13.4 and 12.5, 512 KiB 15.6, 1 MiB 13.0. Beyond 256 KiB it is noise,
and a user without privileges may have 64 MiB of pipes before new ones shrink.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Callable

from forwarder import _core
from gateway.relay.poller import READ, Poller

LINGER_S = 30.0
"""How long a reader may take for the bytes before a reset."""

_RESET = struct.pack("ii", 1, 0)


class Joined:
    """One connection of two sockets, which are closed with it."""

    __slots__ = ("_lingers", "_number", "_over", "_splices", "sockets")

    def __init__(
        self,
        splices: "Splices",
        sockets: tuple[socket.socket, socket.socket],
        over: Callable[["Joined", int], None],
        lingers: Callable[["Joined"], None],
    ) -> None:
        """``over`` is called once, with 0 or the errno of what broke the connection.

        ``lingers`` is called when one end has failed: call ``settle`` now and then, and ``reset`` after
        LINGER_S. Raises OSError: the kernel does not watch more sockets.
        """
        self.sockets = sockets
        """The two ends, near and far."""
        self._splices = splices
        self._over: Callable[[Joined, int], None] | None = over
        self._lingers = lingers
        (near, near_is_unix), (far, far_is_unix) = (
            (sock.fileno(), sock.family == socket.AF_UNIX) for sock in sockets
        )
        self._number = splices.core.join(near, far, near_is_unix, far_is_unix)
        splices.joined[self._number] = self

    def reset(self, error: int = errno.ECONNABORTED) -> None:
        """End it now: both ends get a reset. No effect once it is over."""
        if self._over is not None:
            self._splices.core.end(self._number)
            self.ended(error)

    def settle(self) -> None:
        """After a failure: end it if the remaining end has acknowledged all earlier bytes."""
        if self._over is not None and (error := self._splices.core.settle(self._number)) >= 0:
            self.reset(error)

    def failed(self) -> None:
        """Take note that one end has failed."""
        self._lingers(self)

    def ended(self, error: int) -> None:
        """Close both ends: the core has forgotten the connection."""
        over, self._over = self._over, None
        assert over is not None
        del self._splices.joined[self._number]
        for sock in self.sockets:
            (abort if error else close)(sock)
        over(self, error)


class Splices:
    """All joined connections."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self.core = _core.Splices()
        self.joined: dict[int, Joined] = {}
        """By the core's number, which a later connection may have again."""
        poller.watch(self.core.fileno(), self._turn, READ)

    @property
    def lent(self) -> int:
        """How many pipes have bytes in them."""
        return self.core.lent()

    def close(self) -> None:
        """Close what the core has; all connections are over."""
        self._poller.unwatch(self.core.fileno())
        self.core.close()

    def _turn(self, _: int) -> None:
        for number, is_over, error in self.core.turn():
            if is_over:
                self.joined[number].ended(error)
            else:
                self.joined[number].failed()
        if self.core.busy():
            self._poller.soon(self._turn)


def abort(sock: socket.socket) -> None:
    """Close ``sock`` so that its peer sees a reset; a unix socket, without resets, is closed as usual."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    close(sock)


def close(sock: socket.socket) -> None:
    """Close ``sock``; an error that it still reports (a late reset) does not matter any more."""
    with contextlib.suppress(OSError):
        sock.close()

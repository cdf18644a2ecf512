"""The listener of ``connect`` VMs: a unix socket; ``POST /connect`` turns a connection into a VM's link.

Theory of operation
-------------------
A connection is a *caller* until its request is complete, and then a VM, like one of any stream listener. The
request is peeked at, and only its own bytes are read from the socket. So the frames behind it stay in the
socket for the port's worker, and only the descriptor is handed over.

    CALLING ──end of the request──► a port
       └── refused, silent for CALL_S, gone, or the longest there when CALLERS are ──► hung up on

So a client that sends nothing, or half a request, holds one of ``CALLERS`` places for at most ``CALL_S``, and
keeps no other client from attaching: the oldest caller makes room, unless its request has come by then.

The other requests of gvproxy's HTTP API are served by the gateway, in another process and at another socket.
"""

import socket
import time
from contextlib import suppress
from typing import NamedTuple

from forwarder.acceptor import BURST, Pauses
from forwarder.channel import credentials_of
from forwarder.loop import Loop
from supervisor.attach.addresses import Listen, PortOptions
from supervisor.attach.http_head import HEAD_BYTES, Head, RefusedError
from supervisor.attach.listener_common import VmHandler, warn_refused
from supervisor.attach.stream import StreamListener

CALLERS = BURST
"""Callers at once, at most. Callers accepted in one turn do not make room for others of that turn."""
CALL_S = 2.0
"""A client sends its request at once; this leaves time for a loaded machine."""


class Caller(NamedTuple):
    """A connection whose request is not complete."""

    sock: socket.socket
    head: Head
    deadline: float


class ConnectListener(StreamListener):
    """One listening socket."""

    descriptors = StreamListener.descriptors + CALLERS

    def __init__(
        self, loop: Loop, pauses: Pauses, address: Listen, settings: PortOptions, owner: VmHandler
    ) -> None:
        """Listen. Raises LocalError."""
        self._callers: dict[int, Caller] = {}
        """By descriptor, the oldest first."""
        super().__init__(loop, pauses, address, settings, owner)

    def close(self) -> None:
        """Stop listening and hang up on callers; VMs that are connected stay."""
        super().close()
        for caller in list(self._callers.values()):
            self._hang_up(caller)

    def tick(self, now: float) -> None:
        """Hang up on callers that have sent no request in time."""
        for caller in [each for each in self._callers.values() if each.deadline <= now]:
            self._refuse(caller, f"no request came within {CALL_S:g} s")

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return next((caller.deadline for caller in self._callers.values()), float("inf"))

    def _on_connection(self, connection: socket.socket) -> None:
        if not credentials_of(connection).are_ours:
            self._warn("it belongs to another user")
            connection.close()
            return
        if len(self._callers) >= CALLERS:
            self._make_room()
        fd = connection.fileno()
        self._callers[fd] = Caller(connection, Head(), time.monotonic() + CALL_S)
        self._loop.watch(fd, lambda _: self._listen_to(fd))

    def _make_room(self) -> None:
        longest = next(iter(self._callers))
        self._listen_to(longest)
        if longest in self._callers:
            self._refuse(self._callers[longest], f"{CALLERS} others have sent no request either")

    def _listen_to(self, fd: int) -> None:
        caller = self._callers[fd]
        try:
            data = caller.sock.recv(HEAD_BYTES, socket.MSG_PEEK)
            if not data:
                self._hang_up(caller)
                return
            beyond = caller.head.feed(data)
            caller.sock.recv(len(data) - (beyond or 0))
        except BlockingIOError:
            return
        except RefusedError as error:
            self._answer(caller, error)
        except OSError:
            self._hang_up(caller)
        else:
            if beyond is not None:
                self._forget(caller)
                self._attach(caller.sock)

    def _answer(self, caller: Caller, error: RefusedError) -> None:
        with suppress(OSError):
            caller.sock.send(error.answer)
        self._refuse(caller, str(error))

    def _refuse(self, caller: Caller, why: str) -> None:
        self._warn(why)
        self._hang_up(caller)

    def _warn(self, why: str) -> None:
        warn_refused(self._throttle, self.url, "a client", why)

    def _hang_up(self, caller: Caller) -> None:
        self._forget(caller)
        caller.sock.close()

    def _forget(self, caller: Caller) -> None:
        fd = caller.sock.fileno()
        del self._callers[fd]
        self._loop.unwatch(fd)

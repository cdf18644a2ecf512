"""Receive published membership over ZeroMQ; only this file of the worker uses zmq.

The worker binds and the supervisor connects, so a worker need not connect to a new supervisor. Any process of
our user can connect, but only messages of the process at the other end of the worker's channel count. The
kernel identifies the sender, and ZeroMQ passes that on with each message (``Peer-Address``). A message that
cannot be decoded, or comes from another process, is skipped.

It uses the classes that pyzmq's own are derived from: pyzmq's are Python, and what runs in a fork costs it
memory, 0.2 MiB here.

A ZeroMQ descriptor reports changes only, so the loop asks ``pending`` before each wait.
"""

import socket
from contextlib import suppress
from typing import cast

import zmq
from zmq import backend

from forwarder.errors import PeerError
from forwarder.messages import Message
from forwarder.rendezvous import endpoint
from forwarder.wire import PUBLISHED_BYTES, decode

AT_ONCE = 256
"""Messages read in one turn, so that a burst of membership cannot keep the worker from forwarding."""


class Subscription:
    """The socket for beats and updates."""

    def __init__(self, listener: socket.socket, file: str) -> None:
        """Use a listening socket, bound to ``file``; starts ZeroMQ's threads."""
        self._context = backend.Context()
        self._socket = backend.Socket(self._context, zmq.SUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.MAXMSGSIZE, PUBLISHED_BYTES)
        self._socket.set(zmq.USE_FD, listener.detach())
        self._socket.set(zmq.SUBSCRIBE, b"")
        self._socket.bind(endpoint(file))

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return cast(int, self._socket.get(zmq.FD))

    def pending(self) -> bool:
        """Whether a message waits now."""
        return bool(cast(int, self._socket.get(zmq.EVENTS)) & zmq.POLLIN)

    def receive(self, supervisor: int) -> list[Message]:
        """Return the messages of the process ``supervisor`` among the next AT_ONCE, in order."""
        messages: list[Message] = []
        for _ in range(AT_ONCE):
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            if not frame.more and _sender(frame) == supervisor:
                with suppress(PeerError):
                    messages.append(decode(frame.bytes, PUBLISHED_BYTES))
        return messages

    def close(self) -> None:
        """Close the socket, and end ZeroMQ's threads."""
        self._socket.close()
        self._context.term()


def _sender(frame: zmq.Frame) -> int:
    """Return the process id of the peer, from ZeroMQ's ``…:uid:gid:pid``."""
    try:
        return int(str(frame.get("Peer-Address")).rpartition(":")[2])
    except (zmq.ZMQError, ValueError):
        return -1

"""The worker's ZeroMQ edge: membership in, reports out. The only file here that knows zmq.

Nothing blocks and nothing raises for what another process does: a message that cannot be decoded is counted
and skipped, a message that cannot be sent is dropped (the next heartbeat says the same, and a request is
repeated by whoever made it). ZeroMQ reconnects by itself when a supervisor comes back.

A ZeroMQ descriptor tells of changes only, and sending may swallow one, so whoever waits on the descriptors
asks ``pending`` before each wait.
"""

import os
from contextlib import suppress
from typing import cast

import zmq

from forwarder.errors import PeerError
from forwarder.rendezvous import CONTROL, MEMBERSHIP, endpoint, subscription
from forwarder.wire import MESSAGE_BYTES, Message, decode, encode

AT_ONCE = 256
"""Messages taken in one go, so that a burst of membership cannot keep the worker from forwarding."""

GOODBYE_MS = 2000
"""How long closing waits for the last message to leave: a busy machine may keep its thread waiting."""

RECONNECT_MS = 100


class ControlClient:
    """Both sockets of one worker."""

    def __init__(self, runtime_dir: str) -> None:
        self.undecodable = 0
        self._context = zmq.Context()
        self._membership = self._context.socket(zmq.SUB)
        self._reports = self._context.socket(zmq.DEALER)
        for socket in (self._membership, self._reports):
            socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
            socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        # What is left unsent to a supervisor that is gone is a subscription: nobody should wait for that.
        self._membership.setsockopt(zmq.LINGER, 0)
        self._reports.setsockopt(zmq.LINGER, GOODBYE_MS)
        # A report for a supervisor that is not there is stale when one comes: do not queue it.
        self._reports.setsockopt(zmq.IMMEDIATE, 1)
        self._membership.subscribe(b"")
        self._membership.subscribe(subscription(os.getpid()))
        self._membership.connect(endpoint(runtime_dir, MEMBERSHIP))
        self._reports.connect(endpoint(runtime_dir, CONTROL))

    def filenos(self) -> tuple[int, int]:
        """Return the descriptors to wait on."""
        return cast(int, self._membership.getsockopt(zmq.FD)), cast(int, self._reports.getsockopt(zmq.FD))

    def pending(self) -> bool:
        """Whether a message waits now."""
        sockets = (self._membership, self._reports)
        return any(cast(int, socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN for socket in sockets)

    def connected(self, patience_s: float) -> bool:
        """Wait until reports can be sent; False if it still cannot after ``patience_s``."""
        return bool(self._reports.poll(int(patience_s * 1000), zmq.POLLOUT))

    def receive(self) -> list[Message]:
        """Return what has arrived, in order for each socket, at most AT_ONCE messages each."""
        messages: list[Message] = []
        for socket in (self._membership, self._reports):
            for _ in range(AT_ONCE):
                try:
                    messages.append(decode(socket.recv(zmq.NOBLOCK)))
                except zmq.Again:
                    break
                except PeerError:
                    self.undecodable += 1
        return messages

    def send(self, message: Message) -> None:
        """Send a report, or drop it if it cannot be sent now."""
        with suppress(zmq.Again):
            self._reports.send(encode(message), zmq.NOBLOCK)

    def close(self) -> None:
        """Close both sockets; what was sent has GOODBYE_MS to leave."""
        self._membership.close()
        self._reports.close()
        self._context.term()

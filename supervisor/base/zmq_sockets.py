"""The supervisor's ZeroMQ sockets: for processes of our own user, with bounded messages."""

import os
from typing import TypeAlias

import zmq

from forwarder.errors import LocalError
from forwarder.process import limits
from forwarder.wire import MESSAGE_BYTES

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"


def open_context() -> Context:
    """Return a ZeroMQ context; call its ``term`` when its sockets are closed. Raises LocalError."""
    limits.make_room()
    return zmq.Context()


def listen(context: Context, kind: int, address: str) -> "zmq.Socket[bytes]":
    """Bind a socket for bounded messages from our own user (and root) only: mode 0600.

    Raises LocalError.
    """
    sock = context.socket(kind)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
    for uid in {os.geteuid(), 0}:
        sock.setsockopt(zmq.IPC_FILTER_UID, uid)
    try:
        bind(sock, address)
    except LocalError:
        sock.close()
        raise
    return sock


def bind(sock: "zmq.Socket[bytes]", address: str) -> None:
    """Bind with mode 0600, also a second time if the file was deleted. Raises LocalError."""
    mask = os.umask(0o177)
    try:
        sock.bind(address)
    except zmq.ZMQError as error:
        raise LocalError(f"cannot listen on {address}: {error.strerror}") from None
    finally:
        os.umask(mask)

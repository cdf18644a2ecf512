"""Where the processes of one switch meet: the names of the sockets in its runtime directory."""

import os

MEMBERSHIP = "membership.sock"
"""ZeroMQ XPUB: beats and updates."""
CONTROL = "control.sock"
"""ZeroMQ ROUTER: hellos, heartbeats and snapshots of workers."""
CONSOLE = "console.sock"
"""ZeroMQ ROUTER: commands of operators."""
DESCRIPTORS = "descriptors.sock"
"""Unix SOCK_SEQPACKET: messages that carry descriptors."""


def path(runtime_dir: str, name: str) -> str:
    """File name of a socket in ``runtime_dir``."""
    return os.path.join(runtime_dir, name)


def endpoint(runtime_dir: str, name: str) -> str:
    """ZeroMQ's name for it."""
    return "ipc://" + path(runtime_dir, name)


def subscription(pid: int) -> bytes:
    """Return the topic that tells that a worker's subscription is in force; nothing is published on it."""
    return b"worker %d" % pid

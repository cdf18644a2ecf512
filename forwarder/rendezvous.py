"""The names of the files in the runtime directory, through which the processes of a switch meet."""

import os

LOCK = "supervisor.lock"
"""Locked by the supervisor; its text begins with the supervisor's process id."""
CONSOLE = "console.sock"
"""ZeroMQ ROUTER: commands of operators."""
CAPTURES = "capture.sock"
"""Unix SOCK_SEQPACKET: viewers of captures."""
CHANNEL = ".channel"
"""Unix SOCK_SEQPACKET of one worker, with its process id: the next supervisor connects to it."""
MEMBERSHIP = ".members"
"""ZeroMQ SUB of one worker, with its process id: it receives beats and updates."""

PORT = ".port"
"""A worker's port as the supervisor has it, with the worker's process id: the next supervisor reads it."""


def path(runtime_dir: str, name: str) -> str:
    """File name of a socket in ``runtime_dir``."""
    return os.path.join(runtime_dir, name)


def worker_path(runtime_dir: str, pid: int, kind: str) -> str:
    """File name of what a worker has; ``kind``: CHANNEL, MEMBERSHIP or PORT."""
    return path(runtime_dir, f"{pid}{kind}")


def endpoint(file: str) -> str:
    """ZeroMQ's name for the socket of that file name."""
    return "ipc://" + file

"""Stub of what ``system/`` has: what the kernel makes, the cell of a process, and forks."""

from collections.abc import Sequence
from typing import Final

CELL_PARTS: Final[tuple[str, ...]]
"""Names of all parts of a cell."""

def waiter_create() -> int:
    """What an engine sleeps on: an epoll instance."""

def tap_open(name: str, netns: int = -1, mac: bytes = ...) -> tuple[int, str]:
    """Open (make) TAP device ``name``, up, in the network namespace of descriptor ``netns`` if >= 0.

    It has the MAC address ``mac`` from its first frame on; without it, its own or a random one.

    Its frames are behind a ``virtio_net_hdr`` of 10 bytes each, little-endian, with offloads as far as the
    kernel has them. Returns the non-blocking descriptor and the kernel's name for it. Raises OSError.
    """

def dissolve(fd: int) -> None:
    """Take the peer from a datagram socket (connect(2) with AF_UNSPEC). Raises OSError."""

def cell_restrict(kind: str, readable: Sequence[str] = ..., /) -> tuple[list[str], int]:
    """Give up for good what the process does not need: the parts of its cell that precede its other threads.

    ``kind``: ``worker``, ``gateway``, ``namespace`` or ``web``. ``readable``: paths, 64 at most, below which
    it may read and execute files.

    Returns the names of the parts in force, and Landlock's ABI (0: none). Raises nothing: a part that the
    kernel lacks is left out.
    """

def cell_filter(kind: str, /) -> list[str]:
    """Enter the last parts, for all threads: limits, and the filter of calls. Returns those in force."""

def cell_refused() -> tuple[int, int]:
    """How many system calls of this thread the filter has refused, and the number of the last (-1: none)."""

def fork_sibling() -> int:
    """Fork a process that is a child of our parent. Returns its number, and 0 in it.

    Raises OSError: out of processes or memory. Only for a process with one thread.
    """

def fork_into_namespaces(user: bool, /) -> int:
    """Fork a process into a network and a PID namespace of its own; ``user``: and into a user namespace.

    Returns its number, and 0 in it. Raises OSError. Only for a process with one thread.
    """

def end_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent has ended."""

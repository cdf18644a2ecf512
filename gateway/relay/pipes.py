"""A pool of pipes, to move bytes between two sockets in the kernel.

``PIPE_BYTES`` by measurement, loopback TCP through one relay process that competes for two cores: 64 KiB
9.4 Gbit/s, 128 KiB 12.7, 256 KiB 13.4 and 12.5, 512 KiB 15.6, 1 MiB 13.0. Beyond 256 KiB it is noise, and a
user without privileges may have 64 MiB of pipes before new ones shrink.
"""

import contextlib
import fcntl
import os
from typing import NamedTuple

PIPE_BYTES = 256 << 10
KEPT_PIPES = 32
"""Empty pipes kept in the pool: more than are filled at a time, unless readers stall."""


class Pipe(NamedTuple):
    """The two ends of a pipe."""

    out: int
    into: int


class Pipes:
    """Pipes to borrow."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self.lent = 0

    def borrow(self) -> Pipe:
        """Return an empty pipe. Raises OSError if no descriptor or memory is left."""
        pipe = self._free.pop() if self._free else _new_pipe()
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Take a pipe back; close it if it holds bytes."""
        self.lent -= 1
        if empty and len(self._free) < KEPT_PIPES:
            self._free.append(pipe)
        else:
            os.close(pipe.out)
            os.close(pipe.into)

    def close(self) -> None:
        """Close the pipes in the pool."""
        while self._free:
            for end in self._free.pop():
                os.close(end)


def _new_pipe() -> Pipe:
    pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    # Beyond the user's share of pipe memory it stays as small as the kernel made it, and is only slower.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(pipe.into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return pipe

"""The descriptors that this process holds, and a process that gets no further one."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
from collections.abc import Iterator


def open_descriptors() -> int:
    """Count this process's open descriptors, without those of other tests' objects that are garbage.

    An object in a reference cycle keeps its socket until a collection. A test in whose middle that came would
    count fewer afterwards than before.
    """
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def is_open(fd: int) -> bool:
    """Whether this process has a descriptor of that number."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let this process get no further descriptor: the limit is the lowest free number."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

"""Room for descriptors: the limit of the process, and the kernel's table of those that are open.

The kernel's table begins with 64 entries and doubles when it is full. In a process with threads, the thread
that needs the room then sleeps through a grace period of RCU, some 10 to 40 ms. So workers and the
supervisor grow their tables before they start threads (fs/file.c of Linux, ``expand_fdtable``).
"""

import fcntl
import os
import resource
from contextlib import suppress


def raise_descriptor_limit(wanted: int | None = None) -> None:
    """Raise the soft limit to the hard one, or to ``wanted`` if that is less; never lower it.

    That is safe, since select(2) is not used here.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    limits = [each for each in (wanted, hard) if each is not None and each != resource.RLIM_INFINITY]
    target = min(limits, default=resource.RLIM_INFINITY)
    if target == resource.RLIM_INFINITY or target > soft:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def grow_descriptor_table(entries: int) -> None:
    """Have room for so many descriptors from now on, 8 bytes each.

    If the limit of descriptors is lower, the table stays.
    """
    any_one = os.eventfd(0)
    with suppress(OSError):
        os.close(fcntl.fcntl(any_one, fcntl.F_DUPFD_CLOEXEC, entries - 1))
    os.close(any_one)

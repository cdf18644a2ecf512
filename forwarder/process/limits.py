"""The limits of resources (setrlimit(2)) under which a command cannot work, checked before it begins.

Theory of operation. A limit that is too low shows late and far from its cause: ZeroMQ aborts the process
where it can start no thread or open no descriptor, an import ends with MemoryError, a ring cannot be made. So
each command asks first for what it needs at least. That does not say what is left: all processes of the user
count for one of the limits. So a command tries ZeroMQ's threads and descriptors out before it needs them
(``make_room``). A worker does not, since that takes 0.2 MiB; the supervisor says what its SIGABRT means.

Example: ``ulimit -u 5; supervisor run`` ends with "the limit of processes and threads (ulimit -u) is 5, and
this needs 16 at least; raise it".
"""

import os
import resource
import threading
from collections.abc import Iterable
from typing import NamedTuple

from forwarder.errors import LocalError

KIB = 1 << 10
THREADS = 2
"""Of a ZeroMQ context."""
DESCRIPTORS = 12
"""Of a context with a socket that is connected."""


NO_THREAD = (
    "no thread can be started; raise the limit of processes and threads (ulimit -u) or end some of this "
    "user's, or raise the limit of memory (ulimit -v)"
)


class Need(NamedTuple):
    """What a command needs at least."""

    resource: int
    what: str
    option: str
    """Of ulimit, a word of the shell."""
    least: int
    unit: int = 1
    """Bytes of one, as the shell counts."""


COMMAND = (
    Need(resource.RLIMIT_NOFILE, "open files", "-n", 32),
    Need(resource.RLIMIT_AS, "virtual memory", "-v", 96 * 1024 * KIB, KIB),
    Need(resource.RLIMIT_DATA, "data", "-d", 48 * 1024 * KIB, KIB),
)
"""Of every command."""

RUN = (
    Need(resource.RLIMIT_NPROC, "processes and threads", "-u", 16),
    Need(resource.RLIMIT_NOFILE, "open files", "-n", 128),
    Need(resource.RLIMIT_AS, "virtual memory", "-v", 160 * 1024 * KIB, KIB),
    Need(resource.RLIMIT_DATA, "data", "-d", 80 * 1024 * KIB, KIB),
    Need(resource.RLIMIT_FSIZE, "a file's size", "-f", 32 * 1024 * KIB, KIB),
)
"""Of a switch with one VM."""

GATEWAY = (Need(resource.RLIMIT_NPROC, "processes and threads", "-u", 24), *RUN)
"""Of a switch with a gateway."""


def check(needs: Iterable[Need]) -> None:
    """Raise LocalError if a limit is below what is needed."""
    for need in needs:
        soft, hard = resource.getrlimit(need.resource)
        limit = hard if need.resource == resource.RLIMIT_NOFILE else soft  # run raises that one itself
        if limit != resource.RLIM_INFINITY and limit < need.least and not _is_exempt(need.resource):
            unit = " KiB" if need.unit == KIB else ""
            raise LocalError(
                f"the limit of {need.what} (ulimit {need.option}) is {limit // need.unit}{unit}, and this "
                f"needs {need.least // need.unit}{unit} at least; raise it"
            )


def make_room() -> None:
    """Raise LocalError unless ZeroMQ can start its threads and open its descriptors: it would abort."""
    spare: list[int] = []
    try:
        while len(spare) < DESCRIPTORS:
            spare.append(os.dup(1))
    except OSError:
        raise LocalError("no descriptor is left; raise the limit of open files (ulimit -n)") from None
    finally:
        for each in spare:
            os.close(each)
    gate = threading.Event()
    threads: list[threading.Thread] = []
    try:
        while len(threads) < THREADS:
            thread = threading.Thread(target=gate.wait)
            thread.start()
            threads.append(thread)
    except (RuntimeError, MemoryError):
        raise LocalError(NO_THREAD) from None
    finally:
        gate.set()
        for each_thread in threads:
            each_thread.join()


def processor_seconds() -> int | None:
    """Return after how many seconds of processor time the kernel ends a process; None: never."""
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    return None if soft == resource.RLIM_INFINITY else soft


def _is_exempt(kind: int) -> bool:
    """Return whether the kernel does not count for root."""
    return kind == resource.RLIMIT_NPROC and os.geteuid() == 0

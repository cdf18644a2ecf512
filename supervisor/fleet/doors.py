"""Notice that sockets of workers were deleted: in their cells they cannot make them again."""

import os
from collections.abc import Iterable

from forwarder.rendezvous import CHANNEL, worker_path
from supervisor.base.logs import log


class Doors:
    """The sockets to which the next supervisor goes."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._without = 0

    def look(self, pids: Iterable[int]) -> None:
        """Look whether each of these workers has its socket, and log when more of them have none."""
        doors = [worker_path(self._runtime_dir, pid, CHANNEL) for pid in pids]
        there = _files(os.path.dirname(doors[0])) if doors else set()
        without = sum(os.path.basename(door) not in there for door in doors)
        if without > self._without:
            log.warning(
                "the sockets of %d workers in %s were deleted: they go on, but the next supervisor cannot "
                "take them over; their VMs lose their link then",
                without,
                self._runtime_dir,
            )
        self._without = without


def _files(directory: str) -> set[str]:
    """Return the names in a directory; one question to the kernel is less work than one for each worker."""
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()

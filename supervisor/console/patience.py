"""How long a command waits for the supervisor's answer: not long if the supervisor is stopped.

Theory of operation. A supervisor answers in milliseconds, in some 1.5 s if a worker or the gateway has to
answer first, and in 3 s while it takes over the workers of another one. On a machine that swaps it may take
longer. So after ``SHORT_S`` the kernel is asked whether the process of the supervisor is stopped: then the
command gives up. In all other states the supervisor has until ``LONG_S``.
"""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from forwarder.errors import LocalError
from forwarder.rendezvous import LOCK, path
from supervisor.base.proc import state_of

SHORT_S = 2.5
LONG_S = 10.0
STOPPED = "T"
"""As proc_pid_stat(5) has it."""


class Waiting(Protocol):
    """The wait for an answer, as of ``select.poll`` and ``zmq.Poller``."""

    def poll(self, timeout: int, /) -> Sequence[object]:
        """Wait for so many milliseconds; return what is ready."""


def wait(waiting: Waiting, runtime_dir: str, longest_s: float = LONG_S) -> None:
    """Wait until ``waiting`` reports something. Raises LocalError if no answer is to be expected."""
    begun, passed = time.monotonic(), 0.0
    while not waiting.poll(math.ceil(min(SHORT_S, longest_s - passed) * 1000)):
        passed = time.monotonic() - begun
        pid, state = _supervisor(runtime_dir)
        if passed < longest_s and state != STOPPED:
            continue
        silent = f"the supervisor in {runtime_dir} has not answered for {passed:.1f} s"
        if state == STOPPED:
            raise LocalError(f"{silent}: its process is stopped; continue it with `kill -CONT {pid}`")
        raise LocalError(f"{silent}; see its log, it may be stuck")


def _supervisor(runtime_dir: str) -> tuple[int, str]:
    """Return the process of a runtime directory and its state; 0 and nothing if they are unknown."""
    with suppress(OSError, ValueError):
        with open(path(runtime_dir, LOCK), encoding="ascii") as lock:
            pid = int(lock.readline())
        return pid, state_of(pid)
    return 0, ""

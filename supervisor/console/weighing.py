"""Add the memory of workers' processes to ``stats``, without weighing all of them at once.

Theory of operation. The kernel finds a process's share of memory (PSS) by a walk through its page tables,
which takes 2 ms for a worker with rings to 250 others and blocks the supervisor. So each question of the
page, of Prometheus and of ``top`` asks for the memory of only ``AT_ONCE`` ports, in turn; the answer gets the
known figures of the others here.

Example: 250 ports, Prometheus every 15 s: a question takes 32 ms for the memory of 16 workers, not 500 for
all, and no figure is older than four minutes. With up to 16 ports each figure is new.
"""

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

AT_ONCE = 16


class Weighing:
    """The known figures, for one thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}
        """Known figures by port and process."""
        self._turn: list[int] = list(range(1, AT_ONCE + 1))

    def stats(self, ask: Callable[..., Any], *, of_all: bool = False) -> Json:
        """Return the answer to ``stats``; ``of_all``: weigh all now. Raises LocalError."""
        answer: Json = ask("stats", weighed=None if of_all else self._turn)
        known: dict[tuple[int, int], int] = {}
        for row in answer["ports"]:
            worker, process = row["worker"], (row["port"], row["worker"]["pid"])
            if worker["pss_bytes"] is None:
                worker["pss_bytes"] = self._known.get(process)
            if worker["pss_bytes"] is not None:
                known[process] = worker["pss_bytes"]
        self._known = known
        ports = [row["port"] for row in answer["ports"]]
        last = self._turn[-1] if self._turn else 0
        behind = [port for port in ports if port > last]
        self._turn = (behind + ports)[:AT_ONCE]
        return answer

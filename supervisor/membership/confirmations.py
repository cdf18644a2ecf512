"""Answer an operator's ``set`` when the settings are in force, at every worker that they concern.

Theory of operation. A change of settings is an update of membership with a sequence number, and every
heartbeat says which sequence its worker works with. A worker sends one at once when its own record has
changed, and after each beat, which ``fleet`` sends at once for a change that others enforce (``in_force``).
When two ports are parted, their floods also have to move to other rings (``flood_moves``). So ``expect``
returns a future, which completes when all workers have reported this sequence or a later one, and all floods
have moved. The result is what is still missing.

A worker that has not read its VM yet reads it only with the present table, so there is nothing to wait for. A
stuck worker does not keep the operator waiting: after ``CONFIRM_S`` the answer names what is missing. A lost
worker is replaced, and its successor starts with the present table and another ring.

Example: sequence 41 isolates port 3, which talked to ports 1 and 2. All three workers send heartbeats with 41
and move their floods, within some milliseconds; the operator's ``set`` returns. If port 2's worker is
stopped, ``set`` returns after two seconds with ``Missing({2}, {2})``.
"""

from collections.abc import Iterable

from forwarder.future import Future
from supervisor.ports.in_force import Missing

CONFIRM_S = 2.0
"""250 workers on a busy machine need less; an operator waits for so long."""


class _Expected:
    """One open confirmation."""

    __slots__ = ("deadline", "floods", "future", "sequence", "workers")

    def __init__(self, sequence: int, workers: set[int], floods: set[int], deadline: float) -> None:
        self.sequence = sequence
        self.workers = workers
        self.floods = floods
        self.deadline = deadline
        self.future: Future[Missing] = Future()


class Confirmations:
    """The open confirmations, in the order of the requests."""

    def __init__(self) -> None:
        self._expected: list[_Expected] = []

    def expect(
        self, sequence: int, workers: Iterable[int], floods: Iterable[int], now: float
    ) -> Future[Missing]:
        """Return a future: what is missing when all are there, or after CONFIRM_S.

        ``workers``: the ports whose workers have to have this sequence; ``floods``: the ports whose floods
        have to move.
        """
        expected = _Expected(sequence, set(workers), set(floods), now + CONFIRM_S)
        self._expected.append(expected)
        self._settle()
        return expected.future

    def heard(self, port: int, sequence: int) -> None:
        """Note the sequence that the worker of a port works with."""
        for each in self._expected:
            if each.sequence <= sequence:
                each.workers.discard(port)
        self._settle()

    def moved(self, port: int) -> None:
        """Note that a port's floods have moved, and are not to move again."""
        for each in self._expected:
            each.floods.discard(port)
        self._settle()

    def forget(self, port: int) -> None:
        """Note that the port's worker has gone: the next one has the present table, and another ring."""
        for each in self._expected:
            each.workers.discard(port)
            each.floods.discard(port)
        self._settle()

    def tick(self, now: float) -> None:
        """Give up confirmations whose time is over."""
        self._settle(now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min((each.deadline for each in self._expected), default=float("inf"))

    def _settle(self, now: float = float("-inf")) -> None:
        over = [each for each in self._expected if not (each.workers or each.floods) or each.deadline <= now]
        self._expected = [each for each in self._expected if each not in over]
        for each in over:
            each.future.set_result(Missing(frozenset(each.workers), frozenset(each.floods)))

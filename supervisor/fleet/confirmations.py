"""Answer an operator's ``set`` when the port's worker has confirmed that the settings are in force.

Theory of operation. A change of settings is an update of membership with a sequence number, and every
heartbeat says which sequence its worker works with. A worker sends one at once when its own record has
changed. So ``expect`` returns a future, which the first heartbeat with this sequence or a later one
completes. A worker that has not read its VM yet reads it only with the present record, so there is nothing to
wait for. A stuck worker does not keep the operator waiting: after ``CONFIRM_S`` the answer is that it has not
confirmed. A lost worker is replaced, and its successor starts with the present record.

Example: sequence 41 pins an address to port 3. Its worker applies it and sends a heartbeat with 41, about a
millisecond later; the operator's ``set`` returns, and a frame from another address that the VM sends
afterwards is dropped.
"""

from typing import NamedTuple

from forwarder.future import Future

CONFIRM_S = 1.0


class _Expected(NamedTuple):
    port: int
    sequence: int
    deadline: float
    future: Future[bool]


class Confirmations:
    """The open confirmations, in the order of the requests."""

    def __init__(self) -> None:
        self._expected: list[_Expected] = []

    def expect(self, port: int, sequence: int, now: float) -> Future[bool]:
        """Return a future: whether the port's worker has this sequence; it completes within CONFIRM_S."""
        future: Future[bool] = Future()
        self._expected.append(_Expected(port, sequence, now + CONFIRM_S, future))
        return future

    def heard(self, port: int, sequence: int) -> None:
        """Note the sequence that the worker of a port works with."""
        self._settle([each for each in self._expected if each.port == port and each.sequence <= sequence])

    def forget(self, port: int) -> None:
        """Note that the port's worker has gone: the next one reads its VM only with the present record."""
        self._settle([each for each in self._expected if each.port == port])

    def tick(self, now: float) -> None:
        """Give up confirmations whose time is over."""
        self._settle([each for each in self._expected if each.deadline <= now], confirmed=False)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min((each.deadline for each in self._expected), default=float("inf"))

    def _settle(self, settled: list[_Expected], *, confirmed: bool = True) -> None:
        for each in settled:
            self._expected.remove(each)
            each.future.set_result(confirmed)

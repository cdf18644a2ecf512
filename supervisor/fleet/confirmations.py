"""Settings that are not in force yet: who set them is answered when the port's worker has said that they are.

Theory of operation. A change of settings is an update of membership with a sequence number, and every
heartbeat says which sequence its worker works with. A worker sends one at once when its own record has
changed. So ``expect`` gives a future that is settled by the first heartbeat with that sequence or a later
one. A worker that has not read its VM yet reads it only with the record of now, so there is nothing to wait
for. A stuck worker does not keep the operator waiting: after ``CONFIRM_S`` the answer is that it has not
confirmed. One that is lost is replaced, and its successor starts with the record of now.

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
    """All that is waited for, in the order in which it was asked for."""

    def __init__(self) -> None:
        self._expected: list[_Expected] = []

    def expect(self, port: int, sequence: int, now: float) -> Future[bool]:
        """Return a future of whether the port's worker has that sequence, settled within CONFIRM_S."""
        future: Future[bool] = Future()
        self._expected.append(_Expected(port, sequence, now + CONFIRM_S, future))
        return future

    def heard(self, port: int, sequence: int) -> None:
        """Note the sequence that the worker of a port works with."""
        self._settle([each for each in self._expected if each.port == port and each.sequence <= sequence])

    def forget(self, port: int) -> None:
        """Note that the port's worker has gone: nothing of its VM is read without the record of now."""
        self._settle([each for each in self._expected if each.port == port])

    def tick(self, now: float) -> None:
        """Give up on what is due."""
        self._settle([each for each in self._expected if each.deadline <= now], confirmed=False)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min((each.deadline for each in self._expected), default=float("inf"))

    def _settle(self, settled: list[_Expected], *, confirmed: bool = True) -> None:
        for each in settled:
            self._expected.remove(each)
            each.future.set_result(confirmed)

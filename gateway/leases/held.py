"""Questions for a lease that wait for a moment, because their guest may just have come from another port.

Theory of operation
-------------------
A VM that is started again attaches to a new port, and may ask before the gateway has heard that its old port
is gone. The lease of its MAC address is then still in use there, and a guest at another port that claims the
address gets another lease (``table``). So such a question waits until the old port leaves, and for
``HOLD_S`` at most: a port that stays has another VM with the same MAC address.

    port 3 has leased .40 to mac 1. The VM's link closes at 0.000 s; at 0.004 s it is at port 5 and asks as
    mac 1. The question is held. At 0.009 s port 3 leaves; the question is answered with .40.

A guest repeats its question after a second or more, so no answer is missed. There are at most ``MOST`` such
questions, one for each guest of a port; without a place a question is answered at once.
"""

from typing import NamedTuple

from gateway.lan.frames import Datagram
from gateway.ports import Port

HOLD_S = 0.5
"""The end of a link is heard within milliseconds; this leaves time for a loaded machine."""
MOST = 256


class Question(NamedTuple):
    """A guest's message, and the port through which it came."""

    heard: Datagram
    port: Port


class _Waiting(NamedTuple):
    question: Question
    old: Port
    end: float


class Held:
    """The questions of one gateway that wait. ``now`` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Port, bytes], _Waiting] = {}
        """By port and MAC address of the guest, the oldest first."""

    def hold(self, question: Question, old: Port, now: float) -> bool:
        """Keep a question until ``old`` leaves; return False if there is no place.

        A repeated question replaces the one before.
        """
        key = (question.port, question.heard.mac)
        before = self._waiting.get(key)
        if before is None and len(self._waiting) >= MOST:
            return False
        self._waiting[key] = _Waiting(question, old, now + HOLD_S if before is None else before.end)
        return True

    def left(self, port: Port) -> list[Question]:
        """Return the questions that waited for a port to leave; forget those that came through it."""
        ready = [each.question for each in self._waiting.values() if port == each.old]
        self._forget([key for key, each in self._waiting.items() if port in (each.old, each.question.port)])
        return ready

    def due(self, now: float) -> list[Question]:
        """Return the questions that have waited long enough."""
        ends = [key for key, each in self._waiting.items() if each.end <= now]
        ready = [self._waiting[key].question for key in ends]
        self._forget(ends)
        return ready

    def deadline(self) -> float:
        """When to call ``due``; infinity if there is no question."""
        return next((each.end for each in self._waiting.values()), float("inf"))

    def _forget(self, keys: list[tuple[Port, bytes]]) -> None:
        for key in keys:
            del self._waiting[key]

"""Questions to the gateway without an answer yet, and the rule by which it counts as silent.

Theory of operation. Questions and answers go over one channel, in order, and an answer says nothing of its
question. So a question that is given up keeps its place: its late answer is dropped.

A question without an answer for ``LIMIT_S`` is given up, and the gateway is *silent* until it answers again.
So that there is always a question, the supervisor asks for the gateway's figures every ``ASK_S``, unless one
is on its way already. So a gateway that stops counts as silent ``ASK_S + LIMIT_S`` later at most.

    0.0 s  figures asked for, answered; the gateway is stopped at 0.1
    1.0 s  figures asked for
    1.2 s  the operator asks for a forward
    2.5 s  the figures are given up: silent
    2.7 s  the forward is given up, and said to be
    3.0 s  the gateway goes on; two late answers come and are dropped; it is no longer silent

A gateway that is silent for ``REPLACE_S`` is replaced, since names and leases of every VM depend on it. Its
connections end then.

If the supervisor itself did not run meanwhile (the machine was suspended, a container paused), the gateway
may not have run, either. Then all times begin anew (``excuse``).

Runs in the supervisor's loop and never blocks.
"""

from collections import deque

from forwarder.future import Future
from forwarder.messages import Reply

ASK_S = 1.0
LIMIT_S = 1.5
"""The gateway answers in a millisecond; if it takes longer than this, its process does not run."""
REPLACE_S = 20.0
"""Long enough for a machine that swaps, or for a debugger."""
MOST = 64
"""More than operators will ask at once."""
LATE_S = 0.5
"""A supervisor that notices a deadline so much later did not run: its turns take milliseconds."""


class _Question:
    __slots__ = ("asked_at", "future", "given_up")

    def __init__(self, now: float) -> None:
        self.future: Future[Reply] = Future()
        self.asked_at = now
        self.given_up = False


class Questions:
    """The questions of one gateway's process, the oldest first. ``now`` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._questions: deque[_Question] = deque()

    def __len__(self) -> int:
        return len(self._questions)

    def ask(self, now: float) -> Future[Reply]:
        """Note a question that is sent now; there may be MOST."""
        self._questions.append(_Question(now))
        return self._questions[-1].future

    def answered(self, reply: Reply) -> None:
        """Give the oldest question its answer, unless it was given up. There must be a question."""
        question = self._questions.popleft()
        if not question.given_up:
            question.future.set_result(reply)

    def silence(self, now: float) -> float:
        """Return the age of the oldest question in seconds; 0 if there is none."""
        return now - self._questions[0].asked_at if self._questions else 0.0

    def began(self) -> float:
        """When the oldest unanswered question was asked; infinity if there is none."""
        return self._questions[0].asked_at if self._questions else float("inf")

    def give_up(self, now: float, why: str) -> bool:
        """Refuse the questions that are due, with ``why``; return whether there were any."""
        due = [each for each in self._questions if not each.given_up and now - each.asked_at >= LIMIT_S]
        for question in due:
            question.given_up = True
            question.future.set_result(Reply(False, why))
        return bool(due)

    def excuse(self, now: float) -> None:
        """Wait for all answers from ``now`` on."""
        for question in self._questions:
            question.asked_at = now

    def deadline(self) -> float:
        """When to call ``give_up``; infinity if there is no question."""
        waited = (each.asked_at for each in self._questions if not each.given_up)
        return next(waited, float("inf")) + LIMIT_S

    def end(self, why: str) -> None:
        """Refuse all questions: their gateway is gone."""
        while self._questions:
            self.answered(Reply(False, why))

"""What the gateway was asked and has not answered yet, and how it is known to hang.

Theory of operation. Questions and answers go over one channel, in order, and an answer says nothing of its
question. So a question that is given up keeps its place: the answer that comes for it after all is dropped.

A question that is not answered for ``LIMIT_S`` is given up, and the gateway is *silent* until it answers
again. Somebody has to ask for that: the supervisor asks for the gateway's figures every ``ASK_S``, unless a
question is on its way already. So a gateway that stops is silent ``ASK_S + LIMIT_S`` future at most.

    0.0 s  figures asked for, answered; the gateway is stopped at 0.1
    1.0 s  figures asked for
    1.2 s  the operator asks for a forward
    2.5 s  the figures are given up: silent
    2.7 s  the forward is given up, and said to be
    3.0 s  the gateway goes on; two answers come, nobody gets them, and it is silent no more

A gateway that is silent for ``REPLACE_S`` is ended, and another one takes its place: names and leases of
every VM hang with it. Its connections end then.

It runs in the loop of the supervisor and waits for nothing itself.
"""

from collections import deque

from forwarder.future import Future
from forwarder.messages import Reply

ASK_S = 1.0
LIMIT_S = 1.5
"""The gateway answers in a millisecond; what takes longer than this is a process that does not run."""
REPLACE_S = 20.0
"""Long enough for a machine that swaps, and for an operator who stops it for a look."""
MOST = 64
"""More questions than there are operators."""


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
        """Note a question, which is sent now; there may be MOST."""
        self._questions.append(_Question(now))
        return self._questions[-1].future

    def answered(self, reply: Reply) -> None:
        """Give the oldest question its answer, if that is still waited for. There must be a question."""
        question = self._questions.popleft()
        if not question.given_up:
            question.future.set_result(reply)

    def silence(self, now: float) -> float:
        """Return for how many seconds the oldest question has not been answered; 0: there is none."""
        return now - self._questions[0].asked_at if self._questions else 0.0

    def began(self) -> float:
        """When the oldest question was asked that has no answer; infinity: there is none."""
        return self._questions[0].asked_at if self._questions else float("inf")

    def give_up(self, now: float, why: str) -> bool:
        """Answer what is due with a refusal that says ``why``; whether anything was due."""
        due = [each for each in self._questions if not each.given_up and now - each.asked_at >= LIMIT_S]
        for question in due:
            question.given_up = True
            question.future.set_result(Reply(False, why))
        return bool(due)

    def deadline(self) -> float:
        """When to call ``give_up``; infinity: there is nothing to give up."""
        waited = (each.asked_at for each in self._questions if not each.given_up)
        return next(waited, float("inf")) + LIMIT_S

    def end(self, why: str) -> None:
        """Answer all with a refusal: their gateway is gone."""
        while self._questions:
            self.answered(Reply(False, why))

"""Answers to the supervisor, in the order in which it asked, whichever is known first."""

from collections import deque
from collections.abc import Callable

from forwarder.errors import LocalError, UsageError
from forwarder.future import Future, known
from forwarder.messages import Reply


class Answers:
    """Those that were not sent yet."""

    def __init__(self, send: Callable[[Reply], None]) -> None:
        self._send = send
        self._waiting: deque[list[Reply]] = deque()
        """Empty: not known yet."""

    def add(self, answer: Future[Reply]) -> None:
        """Send an answer when it is known, behind those that were added before."""
        place: list[Reply] = []
        self._waiting.append(place)
        answer.add_done_callback(lambda reply: self._known(place, reply))

    def _known(self, place: list[Reply], reply: Reply) -> None:
        place.append(reply)
        while self._waiting and self._waiting[0]:
            self._send(self._waiting.popleft()[0])


def attempt(run: Callable[[], Future[Reply]]) -> Future[Reply]:
    """Return the answer of ``run``; if it raises LocalError, the refusal."""
    try:
        return run()
    except LocalError as error:
        return known(refusal(error))


def refusal(error: LocalError) -> Reply:
    """Return the answer that says why not, and whether the operator's words are the reason."""
    return Reply(False, {"usage": str(error)} if isinstance(error, UsageError) else str(error))

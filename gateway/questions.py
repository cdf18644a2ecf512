"""Questions of the gateway to the supervisor: each gets one answer, in order."""

from collections import deque
from collections.abc import Callable

from forwarder.errors import PeerError
from forwarder.future import Future, known
from forwarder.messages import Command, Reply
from gateway.api import CONNECTIONS

MOST = CONNECTIONS
"""Unanswered questions: one for each client of the API, which asks them."""


class Questions:
    """Those without an answer yet."""

    def __init__(self, send: Callable[[Command], None]) -> None:
        """``send`` sends to the supervisor."""
        self._send = send
        self._waiting: deque[Future[Reply]] = deque()

    def ask(self, what: str) -> Future[Reply]:
        """Ask for a fact."""
        if len(self._waiting) >= MOST:
            return known(Reply(False, "the supervisor has not answered for a while; the log may say why"))
        future: Future[Reply] = Future()
        self._waiting.append(future)
        self._send(Command("ask", {"what": what}))
        return future

    def answered(self, reply: Reply) -> None:
        """Pass an answer on to the oldest question. Raises PeerError if there is none."""
        if not self._waiting:
            raise PeerError("an answer without a question is not for the gateway")
        self._waiting.popleft().set_result(reply)

"""What is asked of a gateway: operators' commands, and its figures once a second.

Theory of operation. Each question is a Command over the gateway's channel, and each answer a Reply
(``questions``). An answer that is late makes the gateway *silent*, until the next one: operators are told so
at once instead of waiting, and see the last figures. A gateway that is silent for long is to be replaced.

    begin ──► open: may be asked ──an answer is late──► silent ──an answer──► open
                      └────────────────── end ◄───────────┘ └──REPLACE_S──► to be replaced

Nothing is asked before ``begin`` and after ``end``: the process starts, or its channel has ended and the
process has not yet. What a gateway says may be anything, since a guest may have taken it over.

Runs in the supervisor's loop and never blocks.
"""

import time
from collections.abc import Callable

from forwarder.errors import LocalError
from forwarder.future import Future, known
from forwarder.messages import Command, Reply
from supervisor.base.logs import say
from supervisor.gateway.announcements import Announcements
from supervisor.gateway.questions import ASK_S, LATE_S, MOST, REPLACE_S, Questions
from supervisor.gateway.states import GatewayEvent, GatewayState, GatewayStates

Figures = dict[str, object]


class Inquiries:
    """The questions to one gateway, and its figures."""

    def __init__(
        self,
        states: GatewayStates,
        send: Callable[[Command], None],
        announcements: Announcements,
        pid: Callable[[], int],
    ) -> None:
        """``send`` calls ``end`` if nothing can be sent; ``pid``: the process of now, for operators."""
        self._states = states
        self._send = send
        self._announcements = announcements
        self._pid = pid
        self._questions = Questions()
        self._is_open = False
        self._ask_at = float("inf")
        self._figures: Figures = {}
        """The gateway's counters, from its last answer."""

    def begin(self, reply: Reply) -> None:
        """Ask from now on; ``reply``: the first answer, which has figures."""
        self._is_open = True
        self._take_figures(reply)
        self._ask_at = time.monotonic()

    def end(self, why: str) -> None:
        """Answer open questions with ``why``, and ask no more until ``begin``."""
        self._is_open = False
        self._questions.end(why)

    def check(self) -> None:
        """Raise LocalError if the gateway cannot answer now."""
        state = self._states.now
        if state is GatewayState.OFF:
            raise LocalError("this switch has no gateway; run it with --gateway")
        if state is GatewayState.SILENT:
            raise LocalError(self._silence())
        if not self._may_ask():
            raise LocalError(f"the gateway does not serve now ({state.value}); the log says why")
        if len(self._questions) >= MOST:
            raise LocalError("the gateway has not answered for a while; the log may say why")

    def ask(self, command: Command) -> Future[Reply]:
        """Pass a command on. Raises LocalError if the gateway cannot answer."""
        self.check()
        future = self._questions.ask(time.monotonic())
        self._send(command)
        return future

    def figures(self) -> Future[Figures | None]:
        """Return its state and counters: its answer of now or, if it does not answer, its last one."""
        if self._may_ask() and len(self._questions) < MOST:
            return self._ask_figures()
        return known(self._shown())

    def summary(self) -> Figures | None:
        """Return the state; None if there is no gateway."""
        state = self._states.now
        return None if state is GatewayState.OFF else {"state": state.value}

    def answered(self, reply: Reply) -> bool:
        """Take an answer; return False if nothing was asked."""
        if not self._questions:
            return False
        if self._states.now is GatewayState.SILENT:
            silence = self._questions.silence(time.monotonic())
            say("gateway", f"the gateway answers again after {silence:.1f} s", state="live")
        self._states.to(GatewayEvent.ANSWERED)
        self._questions.answered(reply)
        return True

    def excuse(self, now: float) -> None:
        """Wait anew for all answers if the supervisor itself did not run meanwhile."""
        if now >= min(self._questions.deadline(), self._replace_at()) + LATE_S:
            self._questions.excuse(now)

    def is_late(self, now: float) -> bool:
        """Whether an answer is late. What has come and was not read yet counts: read it before ``tick``."""
        return now >= self._questions.deadline()

    def tick(self, now: float) -> bool:
        """Do what is due; return whether the gateway has been silent for long and is to be replaced."""
        if self._questions.give_up(now, self._silence()):
            if self._states.now is GatewayState.UP:
                text = f"{self._silence()}; guests' new connections and commands fail"
                say("gateway", text, "warning", state="silent")
            self._states.to(GatewayEvent.UNANSWERED)
        if now >= self._replace_at():
            say("gateway", f"{self._silence()}, and is replaced", "error", state="ended")
            return True
        if now >= self._ask_at and self._may_ask() and not self._questions:
            self._ask_figures()
        return False

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        ask_at = self._ask_at if self._may_ask() and not self._questions else float("inf")
        return min(ask_at, self._questions.deadline(), self._replace_at())

    def _may_ask(self) -> bool:
        return self._is_open and self._states.now is GatewayState.UP

    def _replace_at(self) -> float:
        is_silent = self._states.now is GatewayState.SILENT
        return self._questions.began() + REPLACE_S if is_silent else float("inf")

    def _ask_figures(self) -> Future[Figures | None]:
        self._ask_at = time.monotonic() + ASK_S
        self._announcements.tell()
        return self.ask(Command("figures", {})).map(self._take_figures)

    def _take_figures(self, reply: Reply) -> Figures | None:
        match reply:
            case Reply(True, {"figures": dict(figures)}):
                self._figures = figures
                self._announcements.resolvers.watch.look(figures, time.monotonic())
        return self._shown()

    def _shown(self) -> Figures | None:
        summary = self.summary()
        return None if summary is None else summary | self._figures

    def _silence(self) -> str:
        pid, seconds = self._pid(), self._questions.silence(time.monotonic())
        return f"the gateway (pid {pid}) has not answered for {seconds:.1f} s; it may be stopped or stuck"

"""What is asked of a gateway: when it may be asked, when it is silent, and whose figures are shown."""

import time

import pytest

from forwarder.errors import LocalError
from forwarder.messages import Command, Message, Reply
from supervisor.gateway.announcements import Announcements
from supervisor.gateway.inquiries import Inquiries
from supervisor.gateway.questions import ASK_S, LIMIT_S, REPLACE_S
from supervisor.gateway.states import GatewayEvent, GatewayState, GatewayStates

BEGUN = Reply(True, {"figures": {"flows": {"tcp": 1}}})


class Gateway:
    """A gateway whose answers are given by hand."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.states = GatewayStates()
        announcements = Announcements(lambda _: None, list, list)
        self.inquiries = Inquiries(self.states, self._send, announcements, lambda: 4711)
        self.shown: list[object] = []

    def _send(self, command: Command) -> None:
        self.asked.append(command.name)

    def serve(self) -> None:
        self.states.to(GatewayEvent.START)
        self.states.to(GatewayEvent.READY)
        self.inquiries.begin(BEGUN)

    def show(self) -> object:
        self.inquiries.figures().add_done_callback(self.shown.append)
        return self.shown[-1] if self.shown else None


@pytest.fixture
def gateway() -> Gateway:
    made = Gateway()
    made.serve()
    return made


def ask(gateway: Gateway) -> list[Message]:
    answers: list[Message] = []
    gateway.inquiries.ask(Command("leases", {})).add_done_callback(answers.append)
    return answers


def test_a_switch_without_a_gateway_says_so() -> None:
    gateway = Gateway()
    assert gateway.inquiries.summary() is None
    assert gateway.show() is None
    with pytest.raises(LocalError, match="run it with --gateway"):
        ask(gateway)


def test_figures_are_asked_for_once_a_second(gateway: Gateway) -> None:
    now = time.monotonic()
    assert gateway.inquiries.deadline() <= now
    gateway.inquiries.tick(now)
    gateway.inquiries.tick(now)  # one is on its way
    assert gateway.asked == ["figures"]
    assert gateway.inquiries.answered(Reply(True, {"figures": {}}))
    assert now + ASK_S / 2 < gateway.inquiries.deadline() <= time.monotonic() + ASK_S


def test_a_late_answer_makes_it_silent_and_the_next_one_ends_that(gateway: Gateway) -> None:
    answers = ask(gateway)
    now = time.monotonic()
    assert not gateway.inquiries.is_late(now)
    assert gateway.inquiries.is_late(now + LIMIT_S)
    assert not gateway.inquiries.tick(now + LIMIT_S)
    assert gateway.states.now is GatewayState.SILENT
    assert [answer.ok for answer in answers if isinstance(answer, Reply)] == [False]
    with pytest.raises(LocalError, match="pid 4711"):
        ask(gateway)
    assert gateway.show() == {"state": "silent", "flows": {"tcp": 1}}
    assert gateway.inquiries.answered(Reply(True, None))  # late: its question was given up
    assert gateway.states.now is GatewayState.UP


def test_a_gateway_that_is_silent_for_long_is_to_be_replaced(gateway: Gateway) -> None:
    ask(gateway)
    now = time.monotonic()
    gateway.inquiries.tick(now + LIMIT_S)
    assert gateway.inquiries.deadline() <= now + REPLACE_S
    assert not gateway.inquiries.tick(now + REPLACE_S - 1.0)
    assert gateway.inquiries.tick(now + REPLACE_S)


def test_a_supervisor_that_did_not_run_waits_anew(gateway: Gateway) -> None:
    ask(gateway)
    now = time.monotonic()
    gateway.inquiries.excuse(now + LIMIT_S)
    assert gateway.inquiries.is_late(now + LIMIT_S)
    gateway.inquiries.excuse(now + 60.0)
    assert not gateway.inquiries.is_late(now + 60.0)


def test_nothing_is_asked_while_its_process_ends(gateway: Gateway) -> None:
    answers = ask(gateway)
    gateway.inquiries.end("the gateway ended")
    assert answers == [Reply(False, "the gateway ended")]
    assert gateway.states.now is GatewayState.UP  # until the process has ended
    assert gateway.show() == {"state": "live", "flows": {"tcp": 1}}
    assert not gateway.inquiries.tick(time.monotonic() + 2 * ASK_S)
    assert gateway.inquiries.deadline() == float("inf")
    assert gateway.asked == ["leases"]
    with pytest.raises(LocalError, match="does not serve now"):
        ask(gateway)


@pytest.mark.parametrize("told", [None, 5, {"figures": 5}, {"figures": None}, {}])
def test_figures_that_are_none_leave_the_last_ones(gateway: Gateway, told: object) -> None:
    gateway.show()
    gateway.inquiries.answered(Reply(True, told))
    assert gateway.shown == [{"state": "live", "flows": {"tcp": 1}}]


def test_an_answer_to_nothing_is_none(gateway: Gateway) -> None:
    assert not gateway.inquiries.answered(Reply(True, None))

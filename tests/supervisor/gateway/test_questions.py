"""Questions to the gateway: answered in order, given up in time, and what their silence says."""

from forwarder.messages import Reply
from supervisor.gateway.questions import LIMIT_S, Questions


def asked(questions: Questions, now: float) -> list[Reply]:
    answers: list[Reply] = []
    questions.ask(now).add_done_callback(answers.append)
    return answers


def test_answers_come_in_the_order_of_the_questions() -> None:
    questions = Questions()
    one, two = asked(questions, 0.0), asked(questions, 0.1)
    questions.answered(Reply(True, 1))
    questions.answered(Reply(True, 2))
    assert (one, two) == ([Reply(True, 1)], [Reply(True, 2)])
    assert questions.deadline() == float("inf")


def test_a_question_is_given_up_when_it_is_due_and_not_before() -> None:
    questions = Questions()
    one, two = asked(questions, 0.0), asked(questions, 1.0)
    assert questions.deadline() == LIMIT_S
    assert not questions.give_up(LIMIT_S - 0.01, "it hangs")
    assert questions.give_up(LIMIT_S, "it hangs")
    assert (one, two) == ([Reply(False, "it hangs")], [])
    assert questions.deadline() == 1.0 + LIMIT_S
    assert not questions.give_up(LIMIT_S, "it hangs")


def test_a_late_answer_is_dropped_and_does_not_answer_another_question() -> None:
    questions = Questions()
    one, two = asked(questions, 0.0), asked(questions, 1.0)
    questions.give_up(LIMIT_S, "it hangs")
    questions.answered(Reply(True, "late"))
    questions.answered(Reply(True, "in time"))
    assert (one, two) == ([Reply(False, "it hangs")], [Reply(True, "in time")])


def test_silence_is_the_age_of_the_oldest_question_also_of_one_given_up() -> None:
    questions = Questions()
    assert questions.silence(5.0) == 0.0
    asked(questions, 5.0)
    questions.give_up(9.0, "it hangs")
    assert questions.silence(9.0) == 4.0
    assert len(questions) == 1


def test_the_end_answers_all_that_wait() -> None:
    questions = Questions()
    one, two = asked(questions, 0.0), asked(questions, 1.0)
    questions.give_up(LIMIT_S, "it hangs")
    questions.end("gone")
    assert (one, two) == ([Reply(False, "it hangs")], [Reply(False, "gone")])
    assert len(questions) == 0


def test_a_gateway_that_could_not_run_has_its_time_again() -> None:
    questions = Questions()
    one, two = asked(questions, 0.0), asked(questions, 0.5)
    questions.give_up(LIMIT_S, "it hangs")
    questions.excuse(60.0)
    assert questions.began() == 60.0
    assert questions.deadline() == 60.0 + LIMIT_S
    assert not questions.give_up(60.0, "it hangs")
    questions.answered(Reply(True, "late"))
    questions.answered(Reply(True, "in time"))
    assert (one, two) == ([Reply(False, "it hangs")], [Reply(True, "in time")])

"""DNS messages: questions, answers, and malformed messages."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.names import message
from gateway.names.message import (
    NAME_ERROR,
    NO_ERROR,
    OUR_BYTES,
    SERVER_FAILURE,
    A,
    Question,
    parse,
    write_name,
)
from tests.helpers.gateway.dns_client import query, read


def parsed(data: bytes) -> Question:
    question = parse(data)
    assert question is not None
    return question


def test_a_question_is_read() -> None:
    question = parsed(query("WWW.Example.com", 28, ident=77))
    assert (question.ident, question.name, question.kind, question.klass) == (77, "www.example.com", 28, 1)
    assert (question.size, question.has_edns, question.operation) == (512, False, 0)
    assert parsed(query("a", 1, edns=1400)).size == 1400
    assert parsed(query("a", 1, edns=100)).size == 512
    assert parsed(query("", 2)).name == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        query("a", 1)[:11],
        query("a", 1)[:-1],
        query("a", 1)[:2] + b"\x81" + query("a", 1)[3:],
        query("a", 1)[:4] + b"\0\2" + query("a", 1)[6:],
        query("a", 1)[:12] + b"\xc0\x0c\0\1\0\1",
        query("a", 1)[:12] + b"\x40" + b"x" * 64 + b"\0\0\1\0\1",
        query("a", 1)[:12] + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1",
        query("a", 1)[:12] + b"\x05abc",
    ],
    ids=range(9),
)
def test_a_message_that_is_no_question_is_ignored(data: bytes) -> None:
    assert parse(data) is None


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_a_question_or_not(data: bytes, rest: bytes) -> None:
    for each in (data, query("a", 1)[:12] + data, query("a.b", 1, edns=1000)[: len(data)] + rest):
        question = parse(each)
        if question is not None:
            assert read(message.answer(question, NO_ERROR)).ident == question.ident
            message.cut(message.answer(question, NO_ERROR), question)


def test_an_answer_has_its_records_and_one_without_says_how_long_that_holds() -> None:
    question = parsed(query("x.y", A, edns=1232))
    records = [message.address(ip_address("10.0.0.1")), message.address(ip_address("10.0.0.2"))]
    answer = read(message.answer(question, NO_ERROR, records))
    assert (answer.code, answer.values) == (NO_ERROR, ["10.0.0.1", "10.0.0.2"])
    assert (answer.question, answer.has_edns, answer.authorities) == ("x.y", True, [])
    for code in (NO_ERROR, NAME_ERROR):
        none = read(message.answer(question, code))
        assert (none.code, none.values, none.authorities) == (code, [], [message.SOA])
    assert read(message.failure(query("a", 1, ident=5), SERVER_FAILURE)).code == SERVER_FAILURE


def test_an_answer_that_is_too_long_says_so_with_its_question() -> None:
    question = parsed(query("x.y", A, ident=3))
    long = message.answer(question, NO_ERROR, [message.Record(16, b"x" * 600)])
    cut = read(message.cut(long, question))
    assert (cut.ident, cut.truncated, cut.values, cut.question) == (3, True, [], "x.y")


@pytest.mark.parametrize("edns", [0, 1232])
def test_a_truncated_answer_has_edns_if_its_question_has(edns: int) -> None:
    question = parsed(query("x.y", A, edns=edns))
    ours = message.answer(question, NO_ERROR)
    record = b"\0\0\x29" + OUR_BYTES.to_bytes(2, "big") + bytes(6)
    for answer in (message.cut(ours, question), ours):
        assert (read(answer).has_edns, answer.endswith(record)) == (bool(edns), bool(edns))


def test_an_answer_answers_its_own_question_alone() -> None:
    question = parsed(query("X.y", A, ident=3))
    good = message.answer(question._replace(ident=9), NO_ERROR)
    assert message.answers(good, 9, question)
    assert message.answers(good.replace(b"X", b"x"), 9, question)  # the letters' case may change
    assert message.renamed(good, 3) == message.answer(question, NO_ERROR)
    assert not message.answers(good, 8, question)
    assert not message.answers(query("X.y", A, ident=9), 9, question)
    assert not message.answers(good.replace(b"X", b"z"), 9, question)
    assert not message.answers(good[:11], 9, question)
    assert message.answers(message.failure(query("X.y", A, ident=9), SERVER_FAILURE), 9, question)
    assert not message.answers(message.failure(query("X.y", A, ident=9), NO_ERROR), 9, question)
    assert message.code(message.answer(question, NAME_ERROR)) == NAME_ERROR


def test_names_are_written_as_they_are_read() -> None:
    for name in ("", "a", "a.b-c._d"):
        assert message._name(write_name(name), 0) == (name, len(write_name(name)))

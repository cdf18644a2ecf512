"""The namespace's process seen from the host side: one that hangs is of no use."""

from __future__ import annotations

import socket
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forwarder.loop import Loop
from forwarder.messages import Command, Reply
from gateway.namespace import MOST_ASKED, Namespace


def test_a_process_that_answers_nothing_is_given_up() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = SimpleNamespace(channel=ours, pidfd=-1, failure="not a real one", close=lambda: None)
    lost: list[str] = []
    answers: list[Reply] = []
    with closing(theirs), closing(Loop(pytest.fail)) as loop:
        namespace = Namespace(loop, cast(Any, process), lost.append, cast(Any, None), cast(Any, None))
        for _ in range(MOST_ASKED):
            namespace.ask(Command("flooded", {})).add_done_callback(answers.append)
        assert (lost, answers) == ([], [])
        for _ in range(2):
            namespace.ask(Command("flooded", {})).add_done_callback(answers.append)
        assert lost == ["its process does not answer"]
        assert len(answers) == MOST_ASKED + 2
        assert not any(answer.ok for answer in answers)

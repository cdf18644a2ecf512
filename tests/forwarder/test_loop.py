"""The loop calls the right callbacks, and one that fails costs the others nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from forwarder.loop import READ, Loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def fail(_: int) -> None:
    raise ValueError("a bug of ours")


def test_a_callback_that_fails_is_reported_and_dropped_and_the_others_go_on(pipe: tuple[int, int]) -> None:
    failures, calls = [], []
    loop = Loop(lambda: failures.append("failed"))
    other = os.dup(pipe[0])
    loop.watch(pipe[0], fail)
    loop.watch(other, calls.append)
    os.write(pipe[1], b"x")
    for _ in range(3):
        loop.turn(0)
    assert failures == ["failed"], "once, and not in every turn"
    assert calls == [READ] * 3
    loop.watch(pipe[0], calls.append)
    loop.turn(0)
    assert len(calls) == 5, "another callback may have the descriptor"
    loop.close()
    os.close(other)


def test_a_callback_that_another_one_replaced_before_it_failed_is_not_dropped_with_it(
    pipe: tuple[int, int],
) -> None:
    calls: list[int] = []
    loop = Loop(lambda: None)

    def replace_and_fail(events: int) -> None:
        loop.watch(pipe[0], calls.append)
        fail(events)

    loop.watch(pipe[0], replace_and_fail)
    os.write(pipe[1], b"x")
    loop.turn(0)
    loop.turn(0)
    assert calls == [READ]
    loop.close()


def test_a_failure_is_on_stderr_by_default(pipe: tuple[int, int], capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop()
    loop.watch(pipe[0], fail)
    os.write(pipe[1], b"x")
    loop.turn(0)
    assert "ValueError: a bug of ours" in capsys.readouterr().err
    loop.close()


def test_signals_and_exits_pass_through_the_loop(pipe: tuple[int, int]) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    loop = Loop()
    loop.watch(pipe[0], interrupted)
    os.write(pipe[1], b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.turn(0)
    loop.close()

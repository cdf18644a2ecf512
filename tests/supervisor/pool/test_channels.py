"""The workers' channels: what each may say, how much of it, and that nothing it says is about another."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from forwarder._core import LAYOUT
from forwarder.channel import ChannelClosedError, close_all
from forwarder.messages import Beat, Claim, Drain, Goodbye, Hello, Message, Note, WantFloods, WantRing
from supervisor.base.allowance import AT_ONCE
from supervisor.pool.channels import BURST, RATE
from tests.helpers.fakes import turn_a_while, turn_until
from tests.helpers.fleet_bench import CELL, FleetBench, record


def test_a_spare_says_that_it_is_ready_and_its_end_is_reported_once(bench: FleetBench) -> None:
    channel, worker = bench.spare()
    assert worker.cell == CELL
    channel.close()
    turn_until(bench.loop, lambda: bench.gone)
    bench.channels.drop(worker)
    assert bench.gone == [worker]


def test_a_claim_brings_its_descriptors(bench: FleetBench) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    bench.channel().send(Claim(LAYOUT, CELL, record(3)), [null] * 7)
    os.close(null)
    turn_until(bench.loop, lambda: bench.claims)
    ((_, claim, fds),) = bench.claims
    assert claim.record == record(3)
    assert len(fds) == 7
    close_all(fds)


def test_the_last_words_of_a_worker_are_heard_although_nothing_reaches_it_any_more(bench: FleetBench) -> None:
    """A message to it may be the first to notice its end, in the middle of telling all workers something."""
    channel = bench.worker(1)
    (worker,) = bench.channels.holders()
    channel.send(Goodbye("the VM's SET_OWNER makes no sense"))
    channel.close()
    assert not bench.channels.send(worker, Beat(1, 1, 1000, 1000))
    assert not bench.reports, "not before the next turn"
    assert bench.channels.deadline() <= bench.now
    bench.channels.tick(bench.now)
    assert bench.reports == [(1, Goodbye("the VM's SET_OWNER makes no sense"))]
    assert bench.gone == [worker]
    assert not bench.channels.send(worker, Beat(1, 1, 1000, 1000))


@pytest.mark.parametrize("first", [WantRing(1, 1), WantFloods(((1, 1),)), Drain(), Hello(), Goodbye("x")])
def test_a_worker_whose_first_message_is_another_one_is_disconnected(
    bench: FleetBench, first: Message
) -> None:
    channel = bench.channel()
    channel.send(first)
    assert bench.ended(channel)
    assert not bench.spares
    assert not bench.reports


def test_a_spare_cannot_report_a_port_and_no_worker_may_introduce_itself_twice(
    bench: FleetBench, caplog: pytest.LogCaptureFixture
) -> None:
    channel, _ = bench.spare()
    for message in (Hello(), Goodbye("the VM left"), WantRing(1, 1), Beat(1, 1, 1000, 1000)):
        channel.send(message)
    null = os.open(os.devnull, os.O_RDONLY)
    channel.send(Claim(LAYOUT, CELL, record(1)), [null] * 7)
    os.close(null)
    turn_a_while(bench.loop)
    assert not bench.reports
    assert not bench.claims
    assert caplog.text.count("is not for the supervisor now") == 1, "one line a second"


def test_reports_are_of_the_port_that_the_channel_has(bench: FleetBench) -> None:
    one, two = bench.worker(1), bench.worker(2)
    two.send(Hello())
    one.send(Note("hear"))
    turn_until(bench.loop, lambda: len(bench.reports) == 2)
    assert sorted(bench.reports, key=str) == [(1, Note("hear")), (2, Hello())]


def test_garbage_before_the_first_word_ends_the_channel_and_later_does_not(
    bench: FleetBench, caplog: pytest.LogCaptureFixture
) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("2i", 0, 1))]
    bench.channel()._sock.sendmsg([b"garbage"], rights)
    turn_until(bench.loop, lambda: bench.gone)
    channel, _ = bench.spare()
    for _ in range(100):
        channel._sock.sendmsg([b"garbage"], rights)
    turn_a_while(bench.loop)
    assert len(bench.gone) == 1
    assert caplog.text.count("bad message") == 1


def test_a_worker_that_says_too_much_is_held_back_and_another_is_not(
    bench: FleetBench, caplog: pytest.LogCaptureFixture
) -> None:
    loud, quiet = bench.worker(1), bench.worker(2)

    def more() -> bool:
        while not loud.backlog:
            loud.send(Note("x"))
        loud.flush()
        return "is held back" in caplog.text

    turn_until(bench.loop, more)
    heard = len(bench.reports)
    assert heard <= BURST
    quiet.send(Hello())
    turn_until(bench.loop, lambda: bench.reports[-1] == (2, Hello()))
    assert len(bench.reports) == heard + 1
    bench.now = bench.channels.deadline()
    bench.channels.tick(bench.now)
    turn_until(bench.loop, lambda: len(bench.reports) > heard + 1)
    turn_a_while(bench.loop)
    assert len(bench.reports) <= heard + 1 + AT_ONCE
    assert bench.channels.deadline() == pytest.approx(bench.now + AT_ONCE / RATE)


def test_a_worker_that_does_not_read_is_given_up_and_delays_no_other(bench: FleetBench) -> None:
    bench.worker(1)
    stuck = bench.workers[1]
    for _ in range(100_000):
        if not bench.channels.send(stuck, Drain()):
            break
    bench.channels.tick(bench.now)
    assert bench.gone == [stuck]


def test_messages_before_the_end_of_a_channel_are_read_even_if_it_left_some_unread(bench: FleetBench) -> None:
    channel = bench.worker(1)
    bench.channels.send(bench.workers[1], Drain())
    channel.send(Goodbye("the VM left"))
    channel.close()  # with Drain unread: the kernel resets the connection
    turn_until(bench.loop, lambda: bench.gone)
    assert bench.reports == [(1, Goodbye("the VM left"))]


def test_an_end_is_an_end(bench: FleetBench) -> None:
    channel, worker = bench.spare()
    bench.channels.drop(worker)
    with pytest.raises(ChannelClosedError):
        channel.receive()
    assert not bench.channels.send(worker, Drain())

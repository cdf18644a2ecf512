"""A channel in a loop: nothing stays in its queue for want of a call, and it costs no turns."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from forwarder.channel import Channel, ChannelClosedError
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.messages import WantRing
from tests.helpers.fakes import reraise
from tests.helpers.guests.waiting import PATIENCE


class Pair:
    """A watched channel, what it has received, and the other end."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.loop = Loop(reraise)
        self.received: list[object] = []
        self.here = LoopChannel(ours)
        self.there = Channel(theirs)
        self.here.watch(self.loop, self._receive)

    def _receive(self) -> None:
        try:
            while (message := self.here.receive()) is not None:
                self.received.append(message[0])
        except ChannelClosedError:
            self.received.append(None)
            self.here.close()

    def fill(self) -> int:
        """Send until messages wait; return how many were sent."""
        sent = 0
        while self.here.backlog < 100:
            sent += 1
            self.here.send(WantRing(1, sent))
        return sent


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.here.close()
    made.there.close()
    made.loop.close()


def test_queued_messages_are_sent_by_the_loop(pair: Pair) -> None:
    sent = pair.fill()
    for number in range(1, sent + 1):
        end = time.monotonic() + PATIENCE
        while (message := pair.there.receive()) is None:
            assert time.monotonic() < end
            pair.loop.turn(0.01)
        assert message[0] == WantRing(1, number)
    assert not pair.here.backlog
    pair.loop.turn(0.0)
    began = time.monotonic()
    pair.loop.turn(0.1)
    assert time.monotonic() - began > 0.09


def test_a_delay_that_polling_does_not_show_is_retried_with_the_next_message(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as kernel:
        kernel.setattr(LoopChannel, "_try", lambda *_: False)  # as for ETOOMANYREFS: not now
        pair.here.send(WantRing(1, 1))
    assert pair.here.backlog == 1
    pair.there.send(WantRing(2, 1))
    pair.loop.turn(PATIENCE)
    assert pair.received == [WantRing(2, 1)]
    assert pair.here.backlog == 0
    assert pair.there.receive() == (WantRing(1, 1), ())


def test_a_queue_for_a_peer_that_does_not_read_costs_no_turns(pair: Pair) -> None:
    pair.fill()
    began = time.monotonic()
    pair.loop.turn(0.1)
    assert time.monotonic() - began > 0.09


def test_messages_before_the_end_are_received_even_with_a_full_queue(pair: Pair) -> None:
    pair.fill()
    pair.there.send(WantRing(2, 1))
    pair.there.close()
    end = time.monotonic() + PATIENCE
    while None not in pair.received:
        assert time.monotonic() < end
        pair.loop.turn(0.01)
    assert pair.received == [WantRing(2, 1), None]

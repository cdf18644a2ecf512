"""The channel passes messages with exactly their descriptors, and neither leaks nor blocks."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from forwarder.channel import BACKLOG, Channel, ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError
from forwarder.messages import Floods, Goodbye, Handover, RingRx, RingTx, WantRing
from forwarder.wire import encode
from tests.helpers.descriptors import open_descriptors


@pytest.fixture
def raw() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the other end as the bare socket that a misbehaving peer has."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = open_descriptors() - 2
    channel = Channel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()
    assert open_descriptors() == before, "descriptors leaked"


@pytest.fixture
def pair(raw: tuple[Channel, socket.socket]) -> tuple[Channel, Channel]:
    return raw[0], Channel(raw[1])


def test_messages_arrive_in_order_with_their_descriptors(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    reading, writing = os.pipe()
    here.send(Goodbye("over"))
    here.send(RingRx(1, 2), [writing, reading])
    assert there.receive() == (Goodbye("over"), ())
    received = there.receive()
    assert received is not None
    message, (passed, other) = received
    assert message == RingRx(1, 2)
    assert not os.get_inheritable(passed)
    os.write(passed, b"x")
    assert os.read(other, 1) == b"x"
    assert there.receive() is None
    for descriptor in (reading, writing, passed, other):
        os.close(descriptor)


def test_a_handover_says_itself_how_many_descriptors_come_with_it(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    reading, writing = os.pipe()
    here.send(Handover("pipe", {"size": 1}, 2), [reading, writing])
    received = there.receive()
    assert received is not None
    assert received[0] == Handover("pipe", {"size": 1}, 2)
    assert len(received[1]) == 2
    with pytest.raises(LocalError, match="goes with 2 descriptors"):
        here.send(Handover("pipe", {}, 2), [reading])
    for descriptor in (reading, writing, *received[1]):
        os.close(descriptor)


def test_as_many_descriptors_as_a_floods_message_may_carry(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    null = os.open("/dev/null", os.O_RDONLY)
    here.send(Floods(tuple((port, 1) for port in range(1, 201))), [null] * 200)
    os.close(null)
    received = there.receive()
    assert received is not None
    assert len(received[1]) == 200
    for descriptor in received[1]:
        os.close(descriptor)


def test_sender_refuses_descriptors_that_do_not_belong(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(LocalError, match="goes with 3 descriptors, not 0"):
        pair[0].send(RingTx(1, 1))


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_missing_and_surplus_descriptors_are_closed_and_reported(
    raw: tuple[Channel, socket.socket], count: int
) -> None:
    channel, peer = raw
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{count}i", *[0] * count))]
    peer.sendmsg([encode(RingTx(1, 1))], rights if count else [])
    peer.sendmsg([encode(WantRing(1, 1))])
    before = open_descriptors()
    with pytest.raises(PeerError, match="not 3"):
        channel.receive()
    assert open_descriptors() == before
    assert channel.receive() == (WantRing(1, 1), ())


@pytest.mark.parametrize("data", [b"garbage", b"\x93\x01\xa5Ready\xc0", b"x" * (65 << 10)])
def test_garbage_is_reported_and_the_next_message_is_read(
    raw: tuple[Channel, socket.socket], data: bytes
) -> None:
    channel, peer = raw
    peer.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))])
    peer.sendmsg([encode(WantRing(1, 1))])
    with pytest.raises(PeerError) as caught:
        channel.receive()
    assert not isinstance(caught.value, ChannelClosedError)
    assert channel.receive() == (WantRing(1, 1), ())


def test_end_is_reported_after_the_last_message(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    here.send(WantRing(1, 1))
    here.close()
    assert there.receive() == (WantRing(1, 1), ())
    with pytest.raises(ChannelClosedError):
        there.receive()
    with pytest.raises(ChannelClosedError):
        there.send(WantRing(1, 1))


def test_a_peer_that_does_not_read_is_queued_for_then_given_up(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    null = os.open("/dev/null", os.O_RDONLY)
    sent = 0
    while not here.backlog:
        here.send(RingRx(1, sent + 1), [null, null])
        sent += 1
    assert here.wants_write
    here.send(WantRing(1, 1))
    for number in range(1, sent + 1):
        if here.backlog:
            here.flush()
        received = there.receive()
        assert received is not None
        assert received[0] == RingRx(1, number)
        close_all(received[1])
    here.flush()
    assert there.receive() == (WantRing(1, 1), ())
    while here.backlog < BACKLOG:
        here.send(WantRing(1, 1))
    with pytest.raises(ChannelClosedError, match="unread"):
        here.send(WantRing(1, 1))
    os.close(null)

"""TCP through a real relay on loopback: half-closes, resets, slow peers, time-outs, bounds, no remains."""

import contextlib
import fcntl
import hashlib
import os
import resource
import socket
import struct
import termios
import time
from ipaddress import IPv4Address

import pytest

from forwarder import tcp_options
from forwarder._core import SPLICE_PIPE_BYTES as PIPE_BYTES
from gateway.relay import descriptors as descriptor_budget
from gateway.relay.descriptors import OF_A_CONNECTION
from gateway.relay.relay import is_own
from gateway.relay.tcp import LINGER_S
from tests.helpers.descriptors import no_more_descriptors, open_descriptors
from tests.helpers.gateway.policies import LOOPBACK
from tests.helpers.gateway.world import World, client, drain, is_reset, reset, server, stall, try_accept
from tests.helpers.guests.waiting import wait_for


def unacknowledged(sock):
    """How many bytes the peer has not acknowledged."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


@pytest.fixture
def connect(world, stack):
    """Return both ends of a new connection through a forward."""
    listener = stack.enter_context(server())
    forward = world.forward(listener)

    def make():
        near = stack.enter_context(client(forward))
        accepted = []
        world.until(lambda: accepted or accepted.extend(filter(None, [try_accept(listener)])), "a connection")
        return near, stack.enter_context(accepted[0])

    return make


def push(world, sock, data, far=None, got=None):
    """Send all of ``data``, with the relay turning and ``far`` reading."""
    view = memoryview(data)
    while view:
        with contextlib.suppress(BlockingIOError):
            view = view[sock.send(view) :]
        world.turn(0)
        if far is not None:
            drain(far, got)


def test_bytes_arrive_in_both_directions_as_they_were_sent(world, connect):
    near, far = connect()
    data = os.urandom(5_000_000)
    for sender, receiver in ((near, far), (far, near)):
        got = bytearray()
        push(world, sender, data, receiver, got)
        receive(world, receiver, got, len(data))
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert world.count("pipes") == 0


def receive(world, sock, got, size):
    """Read until there are ``size`` bytes, or the end."""
    world.until(lambda: drain(sock, got) or len(got) >= size, f"{size} bytes")


def test_a_reader_may_pause_for_as_long_as_it_likes(world, connect):
    """TCP_USER_TIMEOUT would end a connection whose window stays shut, however alive its peer is."""
    near, _ = connect()
    stall(world, near)
    connections = world.relay._connections
    (joined,) = connections._joined
    for descriptor in connections._core.sockets(joined.number):
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


def test_guests_are_asked_whether_they_are_there_without_another_descriptor(world, connect):
    near, far = connect()
    world.until(lambda: world.relay._connections._joined, "the connection")
    connections = world.relay._connections
    guests = set(connections.peers())
    with no_more_descriptors():
        connections.probe(guests)
        connections.reap(guests, 60.0)
    near.send(b"still here")
    receive(world, far, bytearray(), len(b"still here"))


@pytest.mark.parametrize("turned", [False, True])
def test_a_half_that_is_closed_leaves_the_other_open(world, connect, turned):
    one, other = connect()[:: -1 if turned else 1]
    one.send(b"question")
    one.shutdown(socket.SHUT_WR)
    got = bytearray()
    world.until(lambda: drain(other, got), "the end of the question")
    assert got == b"question"
    other.send(b"answer")
    answer = bytearray()
    world.until(lambda: drain(one, answer) or answer, "the answer")
    assert world.count("connections") == 1
    other.close()
    world.until(lambda: drain(one, answer), "the end")
    assert answer == b"answer"
    world.until(lambda: world.count("ended") == 1, "the connection to be over")


@pytest.mark.parametrize("turned", [False, True])
def test_a_reset_comes_after_the_bytes_before_it(world, connect, turned):
    for size in (1, 72, 40_000):
        one, other = connect()[:: -1 if turned else 1]
        other.send(b"unread, so that closing is a reset")
        world.until(lambda one=one: readable(one), "the question")
        one.send(bytes(size))
        one.close()
        got = bytearray()
        with pytest.raises(ConnectionResetError):
            world.until(lambda other=other, got=got: drain(other, got), "the end")
        assert len(got) == size


def readable(sock):
    with contextlib.suppress(BlockingIOError):
        return sock.recv(1, socket.MSG_PEEK)
    return b""


@pytest.mark.parametrize("turned", [False, True])
def test_a_slow_reader_gets_all_that_was_sent_before_a_reset(world, connect, turned):
    one, other = connect()[:: -1 if turned else 1]
    taken = stall(world, one) - unacknowledged(one)
    reset(one)
    got = bytearray()
    with pytest.raises(ConnectionResetError):
        world.until(lambda: drain(other, got), "the end")
    assert len(got) >= taken > PIPE_BYTES
    assert not any(got)
    world.until(lambda: world.count("reset") == 1, "the connection to be over")
    assert (world.count("pipes"), world.relay.deadline()) == (0, None)


@pytest.mark.parametrize("turned", [False, True])
def test_a_reader_that_stalls_is_reset_in_the_end(world, connect, turned):
    one, other = connect()[:: -1 if turned else 1]
    stall(world, one)
    reset(one)
    connections = world.relay._connections
    world.until(lambda: connections._lingering, "the reset to be noticed")
    world.relay.tick(time.monotonic() + LINGER_S)
    assert (world.count("reset"), world.count("pipes")) == (1, 0)
    with pytest.raises(ConnectionResetError):
        drain(other, bytearray())


@pytest.mark.parametrize("turned", [False, True])
def test_urgent_data_passes_with_its_mark_and_stops_nothing(world, connect, turned):
    one, other = connect()[:: -1 if turned else 1]
    other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    expected = bytearray()
    got = bytearray()
    for number in range(5):
        before = bytes([number]) * (number * 7000)
        one.send(before)
        one.send(b"!", socket.MSG_OOB)
        expected += before + b"!"
        receive(world, other, got, len(expected))
    push(world, one, bytes(300_000), other, got)
    receive(world, other, got, len(expected) + 300_000)
    assert got == expected + bytes(300_000)
    one.send(b"?", socket.MSG_OOB)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 0)
    world.until(lambda: urgent(other) == b"?", "the byte by itself")


@pytest.mark.parametrize("turned", [False, True])
def test_bytes_behind_urgent_data_arrive_also_if_the_stream_has_ended(world, connect, turned):
    one, other = connect()[:: -1 if turned else 1]
    other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    one.send(b"before")
    one.send(b"!", socket.MSG_OOB)
    one.send(b"after")
    one.send(b"?", socket.MSG_OOB)
    one.shutdown(socket.SHUT_WR)
    got = bytearray()
    world.until(lambda: drain(other, got), "the end")
    assert got == b"before!after?"


def urgent(sock):
    try:
        return sock.recv(1, socket.MSG_OOB)
    except (BlockingIOError, OSError):
        return b""


def test_a_stalled_reader_costs_no_calls_and_delays_no_other(world, connect):
    near, far = connect()
    stall(world, near)
    assert world.count("pipes") == 1

    def sleeps():
        """Whether a turn takes no CPU time: never, if it were polled for; a few last bytes may still come."""
        before = time.thread_time()
        world.turn(0.2)
        return time.thread_time() - before < 0.1

    wait_for(lambda: all(sleeps() for _ in range(3)), "the relay to sleep")
    quick, its_far = connect()
    data, got = bytes(3_000_000), bytearray()
    push(world, quick, data, its_far, got)
    world.until(lambda: drain(its_far, got) or len(got) == len(data), "the quick one")
    # The stalled one lost nothing.
    near.shutdown(socket.SHUT_WR)
    slow = bytearray()
    world.until(lambda: drain(far, slow), "the slow one")
    assert len(slow) > PIPE_BYTES
    assert not any(slow)


def test_sockets_of_one_machine_do_not_pace(world, connect, stack):
    connect()
    world.until(lambda: world.relay._connections._joined, "the connection")
    for sock in ends(world, stack):
        assert algorithm(sock) == b"reno"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def ends(world, stack):
    """Return duplicates of both sockets of the only connection."""
    (joined,) = world.relay._connections._joined
    return [
        stack.enter_context(socket.socket(fileno=os.dup(fd)))
        for fd in world.relay._splices.sockets(joined.number)
    ]


def test_silence_is_asked_about_and_survived(world, stack, monkeypatch):
    monkeypatch.setattr(tcp_options, "KEEPALIVE", (1, 1, 3))
    listener = stack.enter_context(server())
    near = stack.enter_context(client(world.forward(listener)))
    world.until(lambda: world.relay._connections._joined, "the connection")
    far = stack.enter_context(listener.accept()[0])
    far.setblocking(False)
    both = ends(world, stack)
    end = time.monotonic() + 4.5  # an end that did not answer would be reset by now
    world.until(lambda: time.monotonic() > end, "the end of the silence")
    assert all(tcp_options.silence_s(sock) < 2.5 for sock in both)
    near.send(b"after the silence")
    got = bytearray()
    world.until(lambda: drain(far, got) or got, "the bytes")


def test_pacing_is_forgone_before_there_is_a_connection(world, stack):
    """The kernel goes on pacing a connection that began under BBR (sk_pacing_status), also under another
    algorithm."""
    made = []

    def make(kind, deliver):
        sock = socket.socket(socket.AF_INET6)  # cannot connect to the guest's IPv4 address
        made.append(stack.enter_context(sock.dup()))
        deliver(sock)

    world.relay._make = make
    forward = world.forward(stack.enter_context(server()))
    with client(forward) as near:
        world.until(lambda: is_reset(near), "the end of the dial")
    (listening, _), *_ = world.relay._listening.values()
    assert [algorithm(sock) for sock in (*made, listening.sock)] == [b"reno"] * 2


def algorithm(sock):
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def test_a_refused_connection_is_a_reset(world):
    closed = server()
    forward = world.forward(closed)
    closed.close()
    with client(forward) as near:
        world.until(lambda: is_reset(near), "the reset")
    assert (world.count("refused"), len(world.relay._connections)) == (1, 0)


def test_a_socket_that_cannot_be_made_is_a_reset(world, stack):
    forward = world.forward(stack.enter_context(server()))
    world.relay._make = lambda kind, deliver: deliver(None)
    with client(forward) as near:
        world.until(lambda: is_reset(near), "the reset")
    assert world.count("failed") == 1


def test_a_near_end_that_goes_ends_the_dial_and_a_late_socket_is_closed(world, stack):
    forward = world.forward(stack.enter_context(server()))
    world.delay = []
    reset_me = client(forward)
    world.until(lambda: world.delay, "the request for a socket")
    reset(reset_me)
    world.until(lambda: world.count("near_gone") == 1, "the end of the dial")
    before = open_descriptors()
    world.delay[0]()
    assert open_descriptors() == before - 1
    assert world.count("dials") == 0


def test_a_dial_that_takes_too_long_is_a_reset(world, stack):
    forward = world.forward(stack.enter_context(server()))
    world.delay = []
    near = stack.enter_context(client(forward))
    world.until(lambda: world.delay, "the request for a socket")
    later = world.relay.deadline()
    world.relay.tick(later - 0.001)
    assert world.count("dials") == 1
    world.relay.tick(later)
    assert world.count("timed_out") == 1
    assert world.relay.deadline() is None
    assert is_reset(near)
    world.delay[0]()


def test_a_connection_beyond_a_fair_share_is_reset_at_once(world, stack, connect):
    world.relay._connections._descriptors.most = 9 * OF_A_CONNECTION
    for _ in range(8):
        connect()
    forward = world.relay.forwards()[0]
    near = stack.enter_context(client(forward))
    world.until(lambda: is_reset(near), "the reset")
    assert world.count("over_limit") == 1
    # Another owner still finds room.
    listener = stack.enter_context(server())
    stack.enter_context(client(world.forward(listener)))
    world.until(lambda: world.count("joined") == 9, "the other one's connection")


def test_the_hosts_other_addresses_are_the_host_too():
    assert is_own(IPv4Address("127.0.0.1"))
    assert not is_own(IPv4Address("203.0.113.1"))


def test_a_removed_forward_lets_its_connections_finish(world, connect):
    near, far = connect()
    forward = world.relay.forwards()[0]
    world.relay.remove(forward)
    with pytest.raises(ConnectionRefusedError):
        client(forward)
    near.send(b"still here")
    got = bytearray()
    world.until(lambda: drain(far, got) or got, "the bytes")
    assert world.add(forward) == forward


def test_closing_resets_and_leaves_nothing(stack):
    before = open_descriptors()
    world = World(LOOPBACK)
    listener = server()
    near = client(world.forward(listener))
    accepted = []
    world.until(lambda: accepted or accepted.extend(filter(None, [try_accept(listener)])), "a connection")
    stall(world, near)
    world.close()
    assert is_reset(accepted[0])
    for sock in (near, accepted[0], listener):
        sock.close()
    assert open_descriptors() == before


def test_the_bound_follows_the_descriptors():
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert OF_A_CONNECTION <= descriptor_budget.budget().most <= min(soft, descriptor_budget.MOST)


def test_the_rest_of_a_turn_is_due_whenever_the_clock_was_read(world):
    now = time.monotonic()
    done = []
    world.relay._poller.soon(done.append)
    assert world.relay.deadline() <= now
    world.relay.tick(now)
    assert done == [0]
    assert world.relay.deadline() is None

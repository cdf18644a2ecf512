"""Connections of the core: dialled and joined; bytes, half-closes and resets pass; nothing is left of any."""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from functools import partial

import pytest

from forwarder import _core
from forwarder._core import (
    SPLICE_BULKY,
    SPLICE_COPIED,
    SPLICE_KEPT_PIPES,
    SPLICE_LEAST_WINDOW,
    SPLICE_PIPE_BYTES,
)
from tests.helpers.core.splicing import (
    LOOPBACK,
    SIOCATMARK,
    ended,
    get,
    join,
    reset,
    sleeps,
    turn,
    unix,
    until,
)
from tests.helpers.descriptors import open_descriptors
from tests.helpers.guests.waiting import PATIENCE


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "size", [1, SPLICE_COPIED - 1, SPLICE_COPIED, SPLICE_COPIED + 1, 3 * SPLICE_COPIED, 1_000_000]
)
def test_bytes_pass_both_ways_and_a_half_close_leaves_the_other_half(core, joined, size, turned):
    (one, other), number = joined[:2][:: -1 if turned else 1], joined[2]
    data, sent = os.urandom(size), 0
    got = bytearray()

    def passed(_):
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += one.send(data[sent:]) if sent < size else 0
        return len(get(other, got)) == size

    until(core, passed)
    assert got == data
    one.shutdown(socket.SHUT_WR)
    until(core, lambda _: ended(other))
    other.sendall(b"answer")
    other.close()
    back = bytearray()
    reports = until(core, bool)
    assert get(one, back) == b"answer"
    assert ended(one)
    assert reports == [(number, "over", 0)]
    assert core.lent() == 0


def test_the_window_of_the_guest_alone_is_bounded_by_what_its_stream_carries(core, stack, listener):
    client, guest, number = join(core, stack, listener)
    clamps = partial(window_clamps, core, number)
    before, got = clamps()[1], bytearray()

    def carried(_):
        with contextlib.suppress(BlockingIOError):
            guest.send(bytes(1 << 15))  # some 30 MB a second, as a turn takes a millisecond
            client.send(bytes(1 << 15))
        get(client, got)
        get(guest, got)
        return clamps()[1] == SPLICE_LEAST_WINDOW

    until(core, carried)
    assert before != SPLICE_LEAST_WINDOW
    assert clamps()[0] != SPLICE_LEAST_WINDOW, "the host's end is its kernel's affair"


def window_clamps(core, number):
    """Return those of the near and the far end."""
    clamps = []
    for descriptor in core.sockets(number):
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            clamps.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP))
    return clamps


def test_a_reader_that_stalls_holds_one_pipe_and_stops_its_source_only(core, joined):
    client, server, _ = joined
    sent = 0
    for _ in range(400):
        turn(core)
        with contextlib.suppress(BlockingIOError):
            sent += client.send(bytes(1 << 16))
    assert core.lent() == 1
    server.sendall(b"the other way")
    back = bytearray()
    until(core, lambda _: get(client, back) == b"the other way")
    got = bytearray()
    until(core, lambda _: len(get(server, got)) == sent)
    assert sent > SPLICE_PIPE_BYTES
    until(core, lambda _: core.lent() == 0)
    assert sleeps(core)


def test_a_turn_moves_bulk_of_a_few_connections_only_and_short_messages_at_once(core, stack, listener):
    """Forty guests' downloads must not hold up an echo, or what the caller watches."""
    client, server, _ = join(core, stack, listener)
    bulk = [join(core, stack, listener)[:2] for _ in range(40)]

    def fill():
        for source, _ in bulk:
            with contextlib.suppress(BlockingIOError):
                while True:
                    source.send(bytes(1 << 16))

    def take():
        """Empty all sinks; return how many had something."""
        return sum(len(get(sink, bytearray())) > 0 for _, sink in bulk)

    fill()
    turn(core)
    assert 0 < take() <= 2 * SPLICE_BULKY
    for _ in range(20):  # in the end all have bulk, and full sinks
        turn(core)
        fill()
    assert take() == len(bulk)
    fill()
    client.sendall(b"echo")
    turn(core)
    assert server.recv(10) == b"echo"


def test_short_messages_to_a_reader_that_stalls_are_all_there_and_in_order(core, joined):
    client, server, _ = joined
    pattern = bytes(range(251)) * 100_000
    sent, idle = 0, 0
    while idle < 20 and sent < len(pattern):
        try:
            sent += client.send(pattern[sent : sent + 999])
            idle = 0
        except BlockingIOError:
            idle += 1
        turn(core)
    assert core.lent() == 1
    got = bytearray()
    until(core, lambda _: len(get(server, got)) == sent)
    assert got == pattern[:sent]


def test_what_came_before_a_reset_arrives_first(core, stack, listener):
    client, server, number = join(core, stack, listener)
    client.sendall(b"last words")
    reset(client)
    reports = until(core, bool)
    assert reports[0] == (number, "lingers", errno.ECONNRESET)
    assert server.recv(100) == b"last words"
    if len(reports) == 1:
        until(core, lambda _: core.settle(number) == errno.ECONNRESET)
        core.end(number, True)
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    assert core.settle(number) == -1


def test_urgent_data_keeps_its_mark(core, stack, listener):
    client, server, _ = join(core, stack, listener)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    client.send(b"before")
    client.send(b"!", socket.MSG_OOB)
    client.send(b"after")
    until(core, lambda _: struct.unpack("i", fcntl.ioctl(server, termios.FIONREAD, bytes(4))) == (12,))
    assert server.recv(100) == b"before"
    assert struct.unpack("i", fcntl.ioctl(server, SIOCATMARK, bytes(4))) == (1,)
    assert server.recv(100) == b"!after"


def test_the_callers_own_descriptors_end_a_wait(core, stack):
    one, other = unix(stack, None)
    core.watch(other.fileno(), 3)
    assert core.wait(time.monotonic()) == (0, [])
    one.send(b"x")
    assert core.wait(time.monotonic() + 60) == (1 << 3, [])
    with pytest.raises(ValueError, match="below 32"):
        core.watch(other.fileno(), 32)


def test_bytes_pass_within_one_wait_which_ends_with_a_report(core, joined):
    client, server, number = joined
    told = []
    waiting = threading.Thread(target=lambda: told.append(core.wait(time.monotonic() + 60)))
    waiting.start()
    for sock in (client, server):
        sock.settimeout(60)
    for each in (b"there", b"and back"):
        client.sendall(each)
        assert server.recv(100) == each
        server.sendall(each)
        assert client.recv(100) == each
    assert not told
    server.close()
    assert client.recv(1) == b""
    client.close()
    waiting.join()
    assert told == [(0, [(number, _core.SPLICE_OVER, 0)])]


def test_a_number_is_used_again_and_what_is_over_is_ignored(core, stack, listener):
    numbers = []
    for _ in range(3):
        client, server, number = join(core, stack, listener)
        numbers.append(number)
        client.send(b"x")
        got = bytearray()
        until(core, lambda _, server=server, got=got: get(server, got) == b"x")
        core.end(number, True)
        core.end(number, True)
        turn(core)
    assert numbers == [numbers[0]] * 3
    core.end(99, True)
    assert core.settle(99) == -1
    assert turn(core) == []


def test_a_number_that_was_given_up_is_not_used_again_in_the_same_turn(core):
    first = core.begin(-1, False)
    core.end(first, True)
    second = core.begin(-1, False)
    assert second != first
    turn(core)
    assert core.begin(-1, False) == first


def test_a_crowd_leaves_no_descriptor(core, stack, listener):
    turn(core)
    before = open_descriptors()
    with contextlib.ExitStack() as crowd:
        for client, server, _ in [join(core, crowd, listener, unix) for _ in range(100)]:
            client.send(b"once")
            client.close()
            server.close()
        over = until(core, lambda reports: sum(news == "over" for _, news, _ in reports) == 100)
        assert {error for _, _, error in over} <= {0, errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}
    assert open_descriptors() <= before + 2 * SPLICE_KEPT_PIPES
    core.close()
    core.close()
    with pytest.raises(ValueError, match="closed"):
        core.wait(0.0)


def test_what_is_closed_takes_no_descriptor(core, listener):
    core.close()
    before = open_descriptors()
    with pytest.raises(ValueError, match="closed"):
        core.begin(os.dup(listener.fileno()), False)
    with pytest.raises(ValueError, match="closed"):
        core.watch(listener.fileno(), 1)
    assert open_descriptors() == before


def test_the_callers_descriptors_end_a_wait_also_while_bytes_pass(core, stack, joined):
    """A signal does not: Python hears of it when the wait is over."""
    client, server, _ = joined
    one, other = unix(stack, None)
    core.watch(other.fileno(), 3)
    over = threading.Event()

    def pump():
        while not over.is_set():
            with contextlib.suppress(BlockingIOError):
                client.send(bytes(1 << 16))
            with contextlib.suppress(BlockingIOError):
                server.recv(1 << 20)

    pumping = threading.Thread(target=pump)
    pumping.start()
    try:
        ringing = threading.Timer(0.1, one.send, (b"x",))
        ringing.start()
        assert core.wait(time.monotonic() + PATIENCE)[0] == 1 << 3
        ringing.join()
    finally:
        over.set()
        pumping.join()


def test_what_cannot_be_done_is_an_error(core, listener):
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.begin(9999, False)
    with pytest.raises(OSError, match="Invalid argument"):
        core.join(core.begin(-1, False), os.dup(listener.fileno()))
    for address, options in (
        (b"12345", b""),
        (LOOPBACK, b"1"),
        (LOOPBACK, struct.pack("=iiI16s", 1, 1, 17, b"")),
    ):
        with pytest.raises(ValueError, match="has"):
            core.connect(core.begin(-1, False), -1, address, 1, False, options)

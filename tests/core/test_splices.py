"""Connections joined by the core: bytes, half-closes and resets pass; nothing is left of one that is over."""

import contextlib
import errno
import os
import socket
import struct

import pytest

from forwarder._core import SPLICE_KEPT_PIPES, SPLICE_PIPE_BYTES, Splices
from tests.helpers.descriptors import open_descriptors


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def core(stack):
    core = Splices()
    stack.callback(core.close)
    return core


def tcp(stack):
    """Return both ends of a TCP connection, which do not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = stack.enter_context(socket.create_connection(listener.getsockname()))
        other = stack.enter_context(listener.accept()[0])
    for sock in (one, other):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    return one, other


def unix(stack):
    pair = socket.socketpair()
    for sock in pair:
        stack.enter_context(sock).setblocking(False)
    return pair


@pytest.fixture(params=[(tcp, tcp), (unix, tcp), (tcp, unix)], ids=["tcp", "near unix", "far unix"])
def joined(request, core, stack):
    """Return client, the relay's two ends, server, and the connection's number."""
    makes = request.param
    client, near = makes[0](stack)
    far, server = makes[1](stack)
    kinds = [sock.family == socket.AF_UNIX for sock in (near, far)]
    return client, near, far, server, core.join(near.fileno(), far.fileno(), *kinds)


def until(core, done):
    """Turn until it is done; return what was reported."""
    reports = []
    for _ in range(2000):
        reports += core.turn()
        if done(reports):
            return reports
    raise AssertionError(f"not done: {reports}")


def get(sock, got):
    with contextlib.suppress(BlockingIOError):
        got += sock.recv(1 << 20)
    return got


def test_bytes_pass_both_ways_and_a_half_close_leaves_the_other_half(core, joined):
    client, _, _, server, number = joined
    data = os.urandom(100_000)
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    got = bytearray()
    until(core, lambda _: len(get(server, got)) == len(data))
    assert got == data
    until(core, lambda _: ended(server))
    server.sendall(b"answer")
    server.close()
    back = bytearray()
    reports = until(core, lambda reports: any(over for _, over, _ in reports))
    assert get(client, back) == b"answer"
    assert reports == [(number, True, 0)]
    assert core.lent() == 0


def ended(sock):
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_reader_that_stalls_holds_one_pipe_and_stops_its_source_only(core, joined):
    client, _, _, server, _ = joined
    sent = 0
    for _ in range(400):
        core.turn()
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
    assert not core.busy()


def test_what_came_before_a_reset_arrives_first(core, stack):
    client, near = tcp(stack)
    far, server = tcp(stack)
    number = core.join(near.fileno(), far.fileno(), False, False)
    client.sendall(b"last words")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    reports = until(core, lambda reports: reports)
    assert reports[0] == (number, False, errno.ECONNRESET)
    assert server.recv(100) == b"last words"
    if len(reports) == 1 or not reports[-1][1]:
        assert core.settle(number) == errno.ECONNRESET
        core.end(number)
    assert core.settle(number) == -1


def test_urgent_data_keeps_its_mark(core, stack):
    client, near = tcp(stack)
    far, server = tcp(stack)
    core.join(near.fileno(), far.fileno(), False, False)
    client.send(b"before")
    client.send(b"!", socket.MSG_OOB)
    client.send(b"after")
    got = bytearray()
    until(core, lambda _: get(server, got) == b"before!after")


def test_a_number_is_used_again_and_what_is_over_is_ignored(core, stack):
    numbers = []
    for _ in range(3):
        (client, near), (far, server) = unix(stack), unix(stack)
        numbers.append(core.join(near.fileno(), far.fileno(), True, True))
        client.send(b"x")
        got = bytearray()
        until(core, lambda _, server=server, got=got: get(server, got) == b"x")
        core.end(numbers[-1])
        core.end(numbers[-1])
    assert numbers == [numbers[0]] * 3
    core.end(99)
    assert core.settle(99) == -1
    assert core.turn() == []


def test_a_crowd_leaves_no_descriptor(core, stack):
    for _ in range(3):
        core.turn()
    before = open_descriptors()
    with contextlib.ExitStack() as crowd:
        for _ in range(100):
            (client, near), (far, server) = unix(crowd), unix(crowd)
            core.join(near.fileno(), far.fileno(), True, True)
            client.send(b"once")
            client.close()
            server.close()
        over = until(core, lambda reports: sum(over for _, over, _ in reports) == 100)
        assert all(error in {0, errno.EPIPE} for _, _, error in over)
    assert open_descriptors() <= before + 2 * SPLICE_KEPT_PIPES
    core.close()
    core.close()
    assert core.turn() == []


def test_a_descriptor_that_cannot_be_watched_is_an_error(core):
    with pytest.raises(OSError, match="Bad file descriptor"):
        core.join(-1, -1, False, False)

"""Connections of the relay's core, made and turned by hand."""

import contextlib
import errno
import socket
import struct
import time

from forwarder import _core, tcp_options
from tests.helpers.guests.waiting import PATIENCE

NEWS = {
    getattr(_core, f"SPLICE_{name.upper()}"): name
    for name in ("answered", "joined", "failed", "over", "lingers")
}
SIOCATMARK = 0x8905
LOOPBACK = socket.inet_aton("127.0.0.1")
OPTIONS = tcp_options.packed(tcp_options.of_a_connection(nearby=True))


def tcp(stack, listener):
    """Return both ends of a TCP connection, which do not block."""
    one = stack.enter_context(socket.create_connection(listener.getsockname()))
    other = stack.enter_context(listener.accept()[0])
    for sock in (one, other):
        sock.setblocking(False)
    return one, other


def unix(stack, _):
    pair = socket.socketpair()
    for sock in pair:
        stack.enter_context(sock).setblocking(False)
    return pair


def connect(core, listener, number, *, here=False):
    return core.connect(number, -1, LOOPBACK, listener.getsockname()[1], here, OPTIONS)


def join(core, stack, listener, make=tcp):
    """Return a client, a server, and the number of the connection that joins them."""
    client, near = make(stack, listener)
    number = core.begin(near.detach(), make is unix)
    assert connect(core, listener, number) == errno.EINPROGRESS
    server = stack.enter_context(listener.accept()[0])
    server.setblocking(False)
    assert until(core, bool) == [(number, "joined", 0)]
    return client, server, number


def turn(core, seconds=0.0):
    _, reports = core.wait(time.monotonic() + seconds)
    return [(number, NEWS[news], error) for number, news, error in reports]


def until(core, done):
    """Turn until it is done; return what was reported."""
    reports = []
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        reports += turn(core, 0.001)
        if done(reports):
            return reports
    raise AssertionError(f"not done: {reports}")


def sleeps(core):
    """Whether a wait takes no CPU time."""
    before = time.thread_time()
    turn(core, 0.2)
    return time.thread_time() - before < 0.1


def get(sock, got):
    with contextlib.suppress(BlockingIOError):
        got += sock.recv(1 << 20)
    return got


def ended(sock):
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

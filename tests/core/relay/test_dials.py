"""Dials and clients: what the far side answers, and what is accepted."""

import errno
import os
import socket
import struct

import pytest

from tests.helpers.core.splicing import LOOPBACK, OPTIONS, connect, get, reset, tcp, turn, until
from tests.helpers.descriptors import no_more_descriptors


def test_a_guests_connection_has_its_answer_at_once_and_waits_for_its_near_end(core, stack, listener):
    number = core.begin(-1, False)
    assert connect(core, listener, number, here=True) == 0
    server = stack.enter_context(listener.accept()[0])
    server.send(b"banner")
    assert turn(core) == []
    client, near = tcp(stack, listener)
    client.send(b"hello")
    core.join(number, near.detach())
    got, back = bytearray(), bytearray()
    until(core, lambda _: get(client, got) == b"banner")
    server.setblocking(False)
    until(core, lambda _: get(server, back) == b"hello")


def test_the_answer_of_another_place_is_reported(core, stack, listener):
    number = core.begin(-1, False)
    assert connect(core, listener, number) == errno.EINPROGRESS
    assert until(core, bool) == [(number, "answered", 0)]
    server = stack.enter_context(listener.accept()[0])
    server.send(b"last words")
    reset(server)
    turn(core)
    client, near = tcp(stack, listener)
    core.join(number, near.detach())
    reports = until(core, bool)
    assert reports[0] == (number, "lingers", errno.ECONNRESET)
    assert client.recv(100) == b"last words"


@pytest.mark.parametrize("here", [False, True])
def test_a_refusal_is_the_answer(core, listener, here):
    port = listener.getsockname()[1]
    listener.close()
    number = core.begin(-1, False)
    error = core.connect(number, -1, LOOPBACK, port, here, OPTIONS)
    if not here:
        assert until(core, bool) == [(number, "failed", errno.ECONNREFUSED)]
    else:
        assert error == errno.ECONNREFUSED
    core.end(number, True)
    assert core.sockets(number) == (-1, -1)


def test_a_near_end_that_goes_before_the_answer_ends_the_dial_once(core, stack, listener):
    client, near = tcp(stack, listener)
    number = core.begin(near.detach(), False)
    reset(client)
    assert until(core, bool) == [(number, "failed", errno.ECONNABORTED)]
    assert turn(core, 0.01) == []
    core.end(number, True)
    assert connect(core, listener, number) == errno.EINVAL


def test_clients_are_accepted_with_their_addresses(core, stack, listener):
    listener.setblocking(False)
    clients = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(3)]
    accepted = []
    while len(accepted) < len(clients):
        accepted += core.accept(listener.fileno(), True)
    for client, (fd, peer, own) in zip(clients, accepted, strict=True):
        with socket.socket(fileno=fd):
            assert not os.get_blocking(fd)
            assert peer == LOOPBACK + struct.pack(">H", client.getsockname()[1])
            assert own == LOOPBACK + struct.pack(">H", listener.getsockname()[1])
    assert core.accept(listener.fileno(), False) == []


def test_without_descriptors_nothing_is_accepted_and_it_is_said(core, stack, listener):
    listener.setblocking(False)
    stack.enter_context(socket.create_connection(listener.getsockname()))
    with no_more_descriptors(), pytest.raises(OSError, match="Too many open files"):
        core.accept(listener.fileno(), False)
    ((fd, *_),) = core.accept(listener.fileno(), False)
    os.close(fd)

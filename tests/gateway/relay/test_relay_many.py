"""Two thousand connections through one relay, one of them with a stalled reader; and what they leave."""

import contextlib
import gc
import os
import resource
import socket

import pytest

from tests.helpers.descriptors import open_descriptors
from tests.helpers.gateway.policies import LOOPBACK
from tests.helpers.gateway.world import World, client, drain, server, stall, try_accept

MANY = 2000
DATA = os.urandom(20_000)
EACH = 4  # descriptors of a connection while all four ends are in this process


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def storm(world, listener, forward):
    """Open all, stall the first, have the others send, be answered and end; return when they are gone."""
    with contextlib.ExitStack() as stack:
        near, far = [], []
        for _ in range(MANY):
            near.append(stack.enter_context(client(forward)))
            world.turn(0)
            while (sock := try_accept(listener)) is not None:
                far.append(stack.enter_context(sock))
        while len(far) < MANY:
            world.turn()
            while (sock := try_accept(listener)) is not None:
                far.append(stack.enter_context(sock))
        world.until(lambda: world.count("connections") == MANY, "all connections")
        assert world.count("pipes") == 0  # idle connections hold none
        stall(world, near[0])
        assert world.count("pipes") == 1
        for sock in near[1:]:
            assert sock.send(DATA) == len(DATA)
            sock.shutdown(socket.SHUT_WR)
        stalled = next(sock for sock in far if sock.getpeername() == peer_of(world, near[0]))
        waiting = {sock: bytearray() for sock in far if sock is not stalled}

        def all_answered():
            for sock, question in list(waiting.items()):
                if drain(sock, question):
                    assert question == DATA
                    assert sock.send(DATA[::-1]) == len(DATA)
                    sock.shutdown(socket.SHUT_WR)
                    del waiting[sock]
            return not waiting

        world.until(all_answered, "all questions")
        for sock in near[1:]:
            answer = bytearray()
            world.until(lambda sock=sock, answer=answer: drain(sock, answer), "an answer")
            assert answer == DATA[::-1]
        world.until(lambda: world.count("connections") == 1, "the others to be over")
        # Buffers of the kernel may have grown meanwhile; they take what the pipe had, and no more.
        world.until(lambda: push_more(near[0]) or world.count("pipes") == 1, "the stalled one to be stalled")
    world.until(lambda: world.count("connections") == 0, "the stalled one to be over")


def push_more(sock):
    with contextlib.suppress(BlockingIOError):
        sock.send(DATA)


def peer_of(world, near):
    """The address that the relay has towards the guest, for a connection of ``near``."""
    for joined in world.relay._connections._joined:
        fds = world.relay._splices.sockets(joined.number)
        one, other = (socket.socket(fileno=os.dup(fd)) for fd in fds)
        with one, other:
            if one.getpeername() == near.getsockname():
                return other.getsockname()
    raise AssertionError("no such connection")


def test_two_thousand_connections_with_a_stalled_reader_leave_nothing():
    before = open_descriptors()
    with contextlib.closing(World(LOOPBACK)) as world, server() as listener:
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < MANY * EACH * 2:
            pytest.skip(f"needs {MANY * EACH * 2} descriptors: raise the hard limit (ulimit -Hn)")
        forward = world.forward(listener)
        storm(world, listener, forward)
        gc.collect()
        warm, open_then = resident(), open_descriptors()
        storm(world, listener, forward)
        gc.collect()
        assert open_descriptors() == open_then
        assert resident() - warm < 8 << 20
        figures = world.relay.counters()
        assert (figures["connections"], figures["dials"], figures["pipes"]) == (0, 0, 0)
        assert figures["joined"] == 2 * MANY
    assert open_descriptors() == before


def test_two_thousand_that_come_at_once_wait_for_their_dials():
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(contextlib.closing(World(LOOPBACK)))
        listener = stack.enter_context(server())
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < MANY * EACH * 2:
            pytest.skip(f"needs {MANY * EACH * 2} descriptors: raise the hard limit (ulimit -Hn)")
        forward = world.forward(listener)
        world.delay = []  # the namespace is slower to make sockets than the host's clients are to come
        for _ in range(MANY):
            stack.enter_context(client(forward))
        world.until(lambda: world.count("dials") == MANY, "all to be dialled")
        waiting, world.delay = world.delay, None
        for deliver in waiting:
            deliver()
        world.until(lambda: world.count("connections") == MANY, "all connections")
        assert world.count("over_limit") == 0

"""The core of a relay, for each test that asks for one."""

import contextlib
import socket

import pytest

from forwarder._core import Splices
from tests.helpers.core.splicing import join, tcp, unix


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def core(stack):
    core = Splices()
    stack.callback(core.close)
    return core


@pytest.fixture
def listener(stack):
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    # Not all that a relay's listener has: the ends of the test are accepted here, too, and must not reset.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    return listener


@pytest.fixture(params=[tcp, unix], ids=["tcp", "near unix"])
def joined(request, core, stack, listener):
    return join(core, stack, listener, request.param)

"""The life of a worker before it has a port: everything slow is done, so that a VM need not wait for it.

A spare has imported what it needs and is in its cell. What it hears of membership is thrown away; it starts
from a snapshot when it has a port. A spare whose supervisor goes away ends at once: it has nothing to save.
"""

import select
import signal
from typing import NamedTuple

from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.errors import PeerError
from forwarder.messages import Assign, KeepSession, Message, Ready
from forwarder.names import PROTOCOL_VERSION
from workers.birth import Birthright


class WorkerFds(NamedTuple):
    """The descriptors that are a port; whoever holds a duplicate of each can take the port over."""

    vm: int
    doorbell: int
    flood_doorbell: int
    stats: int
    flood: int


class Kept(NamedTuple):
    """What another worker of the port kept of a vhost-user session, with its descriptors."""

    message: KeepSession
    descriptors: tuple[int, ...]


class Assignment(NamedTuple):
    """A port to serve, and what the spare had ready for it."""

    assign: Assign
    fds: WorkerFds
    birthright: Birthright
    kept: Kept | None = None
    """Of a port whose worker was lost."""


def wait_for_port(runtime_dir: str) -> Assignment | None:
    """Report to the supervisor and wait. None: it went away or said to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    birthright = Birthright(runtime_dir)
    try:
        birthright.channel.send(Ready(PROTOCOL_VERSION, birthright.cell), birthright.proc)
        assign, descriptors, kept = _next_assign(birthright)
    except ChannelClosedError:
        birthright.close()
        return None
    return Assignment(assign, WorkerFds(*descriptors), birthright, kept)


def _next_assign(birthright: Birthright) -> tuple[Assign, tuple[int, ...], Kept | None]:
    channel, subscription = birthright.channel, birthright.subscription
    poll = select.poll()
    for fd in (channel.fileno(), subscription.fileno()):
        poll.register(fd, select.POLLIN)
    kept: Kept | None = None
    while True:
        while subscription.pending():
            subscription.receive(birthright.supervisor)
        poll.poll()
        received = _receive(channel)
        if received is None:
            continue
        message, descriptors = received
        if isinstance(message, Assign):
            return message, descriptors, kept
        if isinstance(message, KeepSession) and kept is None:
            kept = Kept(message, descriptors)
        else:
            close_all(descriptors)


def _receive(channel: Channel) -> tuple[Message, tuple[int, ...]] | None:
    """Return the next good message, if any. Raises ChannelClosedError."""
    try:
        return channel.receive()
    except ChannelClosedError:
        raise
    except PeerError:
        return None

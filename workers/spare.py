"""A worker before it has a port: it does all slow work early, so that no VM waits for it.

A spare has imported its modules and is in its cell. It ignores published membership; it starts from a
snapshot when it has a port. A spare ends at once when its supervisor goes away: it has nothing to save.
"""

import select
import signal
from typing import NamedTuple

from forwarder import _core
from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.errors import PeerError
from forwarder.messages import Assign, KeepSession, Message, Ready
from workers.birth import Birthright


class WorkerFds(NamedTuple):
    """The descriptors of a port; a process with a duplicate of each can take the port over."""

    vm: int
    doorbell: int
    flood_doorbell: int
    stats: int
    flood: int


class Kept(NamedTuple):
    """The stored vhost-user session of the port's last worker, with its descriptors."""

    message: KeepSession
    descriptors: tuple[int, ...]


class Assignment(NamedTuple):
    """A port to serve, and everything that the spare has prepared for it."""

    assign: Assign
    fds: WorkerFds
    birthright: Birthright
    kept: Kept | None = None
    """The stored session, if the port's last worker was lost."""


def wait_for_port(runtime_dir: str) -> Assignment | None:
    """Report to the supervisor and wait for a port; None if the supervisor went away or ended the spare."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    birthright = Birthright(runtime_dir)
    try:
        birthright.channel.send(Ready(_core.LAYOUT, birthright.cell), birthright.proc)
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
    """Return the next valid message, if any. Raises ChannelClosedError."""
    try:
        return channel.receive()
    except ChannelClosedError:
        raise
    except PeerError:
        return None

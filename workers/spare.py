"""The life of a worker before it has a port: everything slow is done, so that a VM need not wait for it.

A spare has imported what it needs, holds its channel, and has its ZeroMQ connections up. What it hears of
membership is thrown away; it starts from a snapshot when it has a port. A spare whose supervisor goes away
ends at once: it has nothing to save.
"""

import os
import select
import signal
from typing import NamedTuple

from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.errors import PeerError
from forwarder.names import PROTOCOL_VERSION, Identity
from forwarder.rendezvous import DESCRIPTORS, path
from forwarder.wire import Assign, KeepSession, Message, Ready
from workers.control import ControlClient

CONNECT_S = 0.1
"""How often a spare that is not connected yet looks whether its supervisor is still there."""


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
    identity: Identity
    runtime_dir: str
    channel: Channel
    control: ControlClient
    kept: Kept | None = None
    """Of a port whose worker was lost."""


def own_identity() -> Identity:
    """Return the identity of this process (proc(5): field 22 of stat, behind the name in parentheses)."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return Identity(os.getpid(), int(fields[19]))


def wait_for_port(runtime_dir: str) -> Assignment | None:
    """Report to the supervisor and wait. None: it went away or said to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    identity = own_identity()
    try:
        channel = Channel.connect(path(runtime_dir, DESCRIPTORS))
    except OSError:
        return None
    control = ControlClient(runtime_dir)
    try:
        # Only who can say HELLO is ready: one that cannot be sent is dropped, and the VM waits for the next.
        while not control.connected(CONNECT_S):
            _receive(channel)
        channel.send(Ready(identity, PROTOCOL_VERSION))
        assign, descriptors, kept = _next_assign(channel, control)
    except ChannelClosedError:
        channel.close()
        control.close()
        return None
    return Assignment(assign, WorkerFds(*descriptors), identity, runtime_dir, channel, control, kept)


def _next_assign(channel: Channel, control: ControlClient) -> tuple[Assign, tuple[int, ...], Kept | None]:
    membership, reports = control.filenos()
    poll = select.poll()
    for fd in (channel.fileno(), membership, reports):
        poll.register(fd, select.POLLIN)
    kept: Kept | None = None
    while True:
        while control.pending():
            control.receive()
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

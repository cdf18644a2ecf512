"""The worker's channel to its supervisor, and the search for the next one when that has died.

Theory of operation. Messages over the channel come from the supervisor, and the worker's messages are about
its port, so they name neither. The supervisor may die at any time. Then the worker first reads its last
messages: a lost half of a ring would be filled without a reader. It goes on forwarding, and listens at its
door (``birth``), to which the next supervisor connects. To that one it claims its port. A worker without a
supervisor for ``ORPHAN_S`` is to end, since no operator could see or stop it.

    connected ──the channel ends──► orphaned ──a supervisor at the door──► connected
                                       └──────ORPHAN_S──────► the worker ends

Messages that are sent meanwhile are dropped: requests are repeated by their makers, and a claim says the
rest.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from forwarder._core import Engine
from forwarder.channel import Channel, ChannelClosedError
from forwarder.errors import LocalError, PeerError
from forwarder.messages import Message
from workers.birth import Birthright

ORPHAN_S = 300.0
"""Longer than an upgrade takes, and longer than a service manager waits."""


class SupervisorChannel:
    """The channel of one worker that has a port."""

    def __init__(
        self,
        engine: Engine,
        birthright: Birthright,
        receive: Callable[[Message, tuple[int, ...]], None],
        claim: Callable[[], None],
        orphan_s: float,
    ) -> None:
        """Go on with the channel of the birthright, on which the engine wakes from now on.

        ``receive`` takes each message with its descriptors. ``claim`` claims the port, by ``send``, when
        there is another supervisor. ``orphan_s``: how long to go on without one.
        """
        self._engine = engine
        self._birthright = birthright
        self._receive = receive
        self._claim = claim
        self._orphan_s = orphan_s
        self._orphan_since = 0.0
        self._channel: Channel | None = birthright.channel
        """None while there is no supervisor."""
        engine.watch(birthright.channel.fileno())

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send, if there is a supervisor. Raises LocalError without descriptors to send others."""
        if self._channel is None:
            return
        try:
            self._channel.send(message, descriptors)
        except ChannelClosedError:
            self._lose()

    def read(self) -> None:
        """Take the messages that have come, and send what had no room before."""
        if self._channel is None:
            return
        try:
            self._channel.flush()
            self._receive_all(self._channel)
        except ChannelClosedError:
            self._lose()

    def seek(self, now: float) -> str:
        """Accept the next supervisor if there is none and it is at the door; return why to give up, or ""."""
        if self._channel is not None:
            return ""
        if now - self._orphan_since >= self._orphan_s:
            return f"no supervisor for {self._orphan_s:g} s"
        if self._birthright.answer_door():
            self._channel = self._birthright.channel
            self._engine.unwatch(self._birthright.door.fileno())
            self._engine.watch(self._channel.fileno())
            try:
                self._claim()
            except LocalError:
                self._lose()
        return ""

    def deadline(self) -> float:
        """When to give up without a supervisor; infinity while there is one."""
        return float("inf") if self._channel is not None else self._orphan_since + self._orphan_s

    def _receive_all(self, channel: Channel) -> None:
        """Read the channel. Raises ChannelClosedError after its last message."""
        while True:
            try:
                received = channel.receive()
            except ChannelClosedError:
                raise
            except PeerError:
                continue
            if received is None:
                return
            self._receive(*received)

    def _lose(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        with suppress(ChannelClosedError):
            self._receive_all(channel)
        self._engine.unwatch(channel.fileno())
        self._engine.end_captures()  # their viewers have lost the supervisor, too; the next one knows none
        channel.close()
        self._orphan_since = time.monotonic()
        self._engine.watch(self._birthright.door.fileno())

"""How membership leaves: newcomers are introduced to one worker after the other, all else is published.

Theory of operation. ZeroMQ wakes all workers at once, two threads of each, and each then asks for the
newcomer's flood ring. Where there are more workers than cores, that is a crowd in which the newcomer itself
waits, and whoever it talks to. So a change that brings a flood ring goes to each worker over its channel,
together with the ring: one wake-up instead of four. Those that have been told run while the next is being
told, so there never is a crowd. The oldest worker is the first (the gateway's, where there is a gateway),
since that is who newcomers talk to, and the newcomer is the last: by that it knows that all know it.

The change is published all the same, for who has no channel now, and because sequence and beats are what
tells a worker that it has missed something; but that is in no hurry, so newcomers of one ``LINGER_S`` share
the wake-up. Order is kept. Any other change is published at once, behind those that linger, and waits only
for an introduction that is under way; so do beats, which would be ahead of what has been published.

A newcomer that has not asked for the table yet waits for something published, so then its own change is, at
once.
"""

from collections import deque
from contextlib import suppress

from forwarder.errors import LocalError
from forwarder.names import PortRecord
from forwarder.wire import Update
from supervisor.fleet.descriptors import DescriptorServer, Peer
from supervisor.fleet.fd_store import Custody
from supervisor.fleet.publisher import Control

AT_ONCE = 16
"""Workers told in one go, so that a newcomer does not keep the loop from the next one."""
LINGER_S = 1.0


class Introductions:
    """The changes that have not been published yet."""

    def __init__(self, control: Control, server: DescriptorServer, custody: Custody) -> None:
        self._control = control
        self._server = server
        self._custody = custody
        self._waiting: deque[Update] = deque()
        """Changes in their order; the first of them is being introduced."""
        self._untold: deque[Peer] = deque()
        """Who has yet to hear of it."""
        self._told: deque[Update] = deque()
        """Changes that all have heard of and that are to be published."""
        self._due = float("inf")
        self._introduced: dict[int, int] = {}
        """The epoch under which each port is known to all."""

    def publish(self, change: str, record: PortRecord, now: float) -> None:
        """Tell everybody of a change."""
        self._waiting.append(self._control.publisher.update(change, record))
        if len(self._waiting) == 1:
            self._begin()
            self._end_those_told(now)

    def tick(self, now: float) -> bool:
        """Do what is due; whether there is somebody left to introduce."""
        for _ in range(AT_ONCE):
            if self._untold:
                self._introduce(self._waiting[0], self._untold.popleft())
        self._end_those_told(now)
        if now >= self._due:
            self._flush()
        if now >= self._control.deadline() and not self._waiting:
            self._flush()
            self._control.beat(now)
            self._server.flush()
        return bool(self._waiting)

    def deadline(self) -> float:
        """When ``tick`` has something to do, unless it said that it has."""
        return min(self._due, self._control.deadline())

    def _flush(self) -> None:
        """Publish what lingers."""
        while self._told:
            self._control.publish(self._told.popleft())
        self._due = float("inf")

    def _begin(self) -> None:
        update = self._waiting[0]
        port, epoch = update.record.port, update.record.epoch
        if update.change == "leave":
            self._introduced.pop(port, None)
        elif self._introduced.get(port) != epoch:
            self._introduced[port] = epoch
            if not self._control.quiet:
                self._untold.extend(
                    sorted(self._server.holders(), key=lambda peer: peer.record == update.record)
                )
        if not self._untold or not self._control.has_asked(port, epoch):
            self._flush()
            self._control.publish(update)

    def _end_those_told(self, now: float) -> None:
        while self._waiting and not self._untold:
            update = self._waiting.popleft()
            if self._control.published < update.sequence:
                self._told.append(update)
                self._due = min(self._due, now + LINGER_S)
            if self._waiting:
                self._begin()

    def _introduce(self, update: Update, peer: Peer) -> None:
        held = self._custody.get(update.record.port)
        if held is not None and held.flood_epoch == update.record.epoch:
            with suppress(LocalError):  # it asks for the ring, then
                self._server.send(peer, update, (held.flood,))

"""The rings to and from the other ports: ask the supervisor for them, attach them, give them up.

Theory of operation. Membership says which ports exist and under which epoch; the engine says which of them
frames are addressed to. The worker asks the supervisor for the missing rings: the flood ring of every port
(``flood_rings``), and a unicast ring to each port that its VM sends to. A request stands until it is answered
or its port (under that epoch) is gone. It is repeated after ``REPEAT_S``, so a lost answer, or a restarted
supervisor, needs no code of its own. Without an answer, frames for a port without a ring are flooded (the
engine holds them back for at most ``REPEAT_S``).

A ring is used, and thereby sealed, as soon as it arrives. When the supervisor has checked the seal, it sends
the other half to the consumer and then RingOpen. If a ring is not open after ``REPEAT_S``, its consumer may
never have got it, so the worker asks again and the new one replaces it. A ring that was empty and unused for
``IDLE_S`` is given up on both sides, since a mapped ring costs memory.

A record carries the port's settings, too. A worker enforces its own port's settings on the frames of its VM.
From other ports' records it needs the pinned addresses, which no other VM may use, and whether the two ports
may talk, which both records decide. A new peer's reach is set as soon as the engine knows the peer, before
any frame of it can have come. The engine has no ring, of either kind, to or from a port out of reach, and
accepts none.

The other half of a ring comes unasked, too, and a channel is faster than membership: a neighbour may know us
before we know it (every neighbour of a restarted worker does), and fills its half already. So an early ring
is kept until membership knows its port. An early half of a unicast ring is also kept until the flood ring of
that port has come, or a request for it has failed: unicast frames must not overtake the floods that the port
sent before it knew us. At most one ring of each kind is kept for each port, and none of a port that has left:
such a ring is late, and would wait for the next port with that number.

This file does not decide membership, and is not called per frame. The core refuses a ring with another epoch
than membership's, and it is forgotten here: the next request has the new epoch.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from forwarder._core import Engine
from forwarder.channel import close_all
from forwarder.messages import (
    MAX_TEXT,
    OWNER,
    FloodRx,
    Floods,
    Message,
    Note,
    Owners,
    RingIdle,
    RingOpen,
    RingOver,
    RingRx,
    RingSealed,
    RingTx,
    Update,
    WantRing,
)
from forwarder.names import MAX_PORTS, PortRecord, may_talk
from forwarder.replica import Changed, Joined, Left
from workers.early import Early, discard, keep
from workers.flood_rings import NEVER, REPEAT_S, FloodRings
from workers.own_settings import OwnSettings
from workers.pins import Pins

IDLE_S = 25.0
"""Time between two checks for idle rings; a ring that is idle at two checks is given up, so within a
minute."""
GIVE_UPS = 8
"""How often a ring to one worker is given up: one that is wanted again and again stays."""


class Request(NamedTuple):
    """A ring asked for."""

    epoch: int
    asked_at: float


class Links:
    """All links of one port."""

    def __init__(
        self, engine: Engine, own: PortRecord, send: Callable[[Message], None], older: int = 0
    ) -> None:
        """``send`` passes a message to the supervisor, or drops it without one; ``older``: ``Assign``."""
        self._engine = engine
        self._own = own
        self._older = max(older, own.epoch)
        """Ports with a later epoch are younger."""
        self._send = send
        self._records: dict[int, PortRecord] = {}
        self._let_in = False
        self._rings: dict[int, Request] = {}
        self._early: dict[int, Early] = {}
        """Early halves of rings: they came before their port, or before its flood ring."""
        self._left: dict[int, int] = {}
        """The last epoch of each port that has left, by number."""
        self.floods = FloodRings(
            engine, own, self._records, send, is_to_come=self._is_to_come, attached=self._attach_early
        )
        """The flood rings of the other ports."""
        self._pins = Pins(engine, self._pinned_ports, self._say)
        self._used: set[int] = set()
        """Ports to which there is a ring."""
        self._given_up: Counter[int] = Counter()
        """How often rings were given up, by their ports' present workers."""
        self._idle: frozenset[int] = frozenset()
        """Ports whose ring was idle at the last check."""
        self._idle_at = NEVER
        self._settings = OwnSettings(engine, own.transport)
        if own.epoch != own.born:
            # The MAC table outlived a worker, and with it the pins of ports that may be gone by now.
            for port in range(1, MAX_PORTS):
                engine.pin(port, [])
        self._set_policy(own)

    def apply(self, action: Joined | Changed | Left) -> None:
        """Take one change of membership."""
        record = action.record
        if record.port == self._own.port:
            if not isinstance(action, Left) and not record.reserved:
                self._set_policy(record)
            return
        if isinstance(action, Left):
            self._forget(record.port)
            return
        known = self._records.get(record.port)
        if known is None or known.epoch != record.epoch:
            self._engine.peer_join(record.port, record.epoch, record.born)
            is_new = record.epoch > self._left.get(record.port, 0)
            is_younger = record.reserved or record.epoch > self._older
            self.floods.joined(record.port, from_start=is_new and (self._let_in or is_younger))
            self._rings.pop(record.port, None)
            self._used.discard(record.port)
            self._given_up.pop(record.port, None)
        self._records[record.port] = record
        discard(self._early, record.port, before=record.epoch)
        self.floods.known(record)
        self._set_reach(record)
        if known is None or known.policy.pinned != record.policy.pinned:
            self._pins.set(record)

    def let_in(self) -> None:
        """Note that our VM is read from now on."""
        self._let_in = True

    def want(self, ports: Sequence[int], now: float) -> None:
        """Ask for rings: frames wait for a ring to each of these ports."""
        for port in ports:
            record = self._records.get(port)
            if record is not None and port not in self._rings and may_talk(self._own, record):
                self._rings[port] = Request(record.epoch, now)
                self._send(WantRing(port, record.epoch))

    def receive(self, message: Message, descriptors: Sequence[int], now: float) -> None:
        """Take an answer of the supervisor; its descriptors are closed or used here."""
        if isinstance(message, RingRx) and self._is_early(message):
            keep(self._early, message.port, Early(message.epoch, tuple(descriptors)))
            return
        try:
            if isinstance(message, (Floods, FloodRx, Update)):
                self.floods.receive(message, descriptors)
            elif isinstance(message, Owners):
                self._engine.set_owners(list(OWNER.iter_unpack(message.owners)))
            elif isinstance(message, RingTx):
                self._attach_tx(message, descriptors, now)
            elif isinstance(message, RingOpen):
                self._open(message)
            elif isinstance(message, RingOver):
                self._let_go_rx(message)
            elif isinstance(message, RingRx):
                self._engine.attach_rx(message.port, message.epoch, *descriptors)
        except OSError:
            # Of a past epoch, or not a valid ring: ignored.
            pass
        finally:
            close_all(descriptors)

    def _is_early(self, message: RingRx) -> bool:
        if self._is_to_come(message.port, message.epoch):
            return True
        record = self._records.get(message.port)
        return record is not None and record.epoch == message.epoch and self.floods.misses(message.port)

    def _is_to_come(self, port: int, epoch: int) -> bool:
        """Whether membership does not know a port under this epoch yet."""
        record = self._records.get(port)
        return epoch > (record.epoch if record is not None else self._left.get(port, 0))

    def _attach_early(self, port: int) -> None:
        early = self._early.get(port)
        if early is not None and early.epoch == self._records[port].epoch:
            with suppress(OSError):
                self._engine.attach_rx(port, early.epoch, *early.descriptors)
            discard(self._early, port, before=early.epoch + 1)

    def _attach_tx(self, half: RingTx, descriptors: Sequence[int], now: float) -> None:
        ring, tail, doorbell = descriptors
        bell = os.dup(doorbell)
        try:
            self._engine.attach_tx(half.port, half.epoch, ring, tail, bell)
        except OSError:
            os.close(bell)
            raise
        if not self._used:
            self._idle_at = now
        self._used.add(half.port)
        self._send(RingSealed(half.port, half.epoch))

    def _open(self, message: RingOpen) -> None:
        request = self._rings.get(message.port)
        if request is not None and request.epoch == message.epoch:
            del self._rings[message.port]

    def _let_go_rx(self, message: RingOver) -> None:
        record = self._records.get(message.port)
        discard(self._early, message.port, before=message.epoch + 1)
        if record is not None and record.epoch == message.epoch:
            self._engine.detach_rx(message.port)

    def _give_idle_up(self) -> None:
        """Give up rings that were idle at two checks, except those that wait to be opened."""
        idle = frozenset(self._engine.idle_rings())
        for port in idle & self._idle - self._rings.keys():
            if self._given_up[port] < GIVE_UPS and self._engine.detach_tx(port):
                self._given_up[port] += 1
                self._used.discard(port)
                self._send(RingIdle(port, self._records[port].epoch))
        self._idle = idle

    def tick(self, now: float) -> None:
        """Ask for missing rings, and stop waiting for those that do not come."""
        self.floods.tick(now)
        if self._used and now - self._idle_at >= IDLE_S:
            self._give_idle_up()
            self._idle_at = now
        for port, request in list(self._rings.items()):
            if now - request.asked_at >= REPEAT_S:
                self._engine.give_up_ring(port)
                self._send(WantRing(port, request.epoch))
                self._rings[port] = request._replace(asked_at=now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        asked_at = min((request.asked_at for request in self._rings.values()), default=float("inf"))
        look_at = self._idle_at + IDLE_S if self._used else float("inf")
        return min(look_at, asked_at + REPEAT_S, self.floods.deadline())

    def _forget(self, port: int) -> None:
        record = self._records.pop(port, None)
        if record is None:
            return
        self._engine.pin(port, [])
        self._engine.peer_leave(port)
        self._left[port] = record.epoch
        discard(self._early, port, before=record.epoch + 1)
        self.floods.forget(port)
        self._rings.pop(port, None)
        self._used.discard(port)
        self._given_up.pop(port, None)

    def _set_policy(self, own: PortRecord) -> None:
        self._own = own
        self._pins.set(own)
        self._settings.apply(own.policy)
        for record in self._records.values():
            self._set_reach(record)

    def _set_reach(self, record: PortRecord) -> None:
        """Set whether to talk to a port. The engine drops the rings of a port that goes out of reach."""
        port, reaches = record.port, may_talk(self._own, record)
        changed = self._engine.set_reach(port, reaches)
        if changed and reaches:
            self.floods.in_reach(port)
        elif not reaches:
            self.floods.forget(port)
            self._rings.pop(port, None)
            self._used.discard(port)
            discard(self._early, port, before=record.epoch + 1)

    def _pinned_ports(self) -> list[PortRecord]:
        return [self._own, *self._records.values()]

    def _say(self, text: str) -> None:
        self._send(Note(text[:MAX_TEXT]))

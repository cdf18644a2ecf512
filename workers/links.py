"""The rings to and from the other ports: ask the supervisor for them, attach them, give them up.

Theory of operation. Membership says which ports exist and under which epoch; the engine says which of them
frames are addressed to. The worker asks the supervisor for the missing rings: the flood ring of every port,
and a unicast ring to each port that its VM sends to. The supervisor sends a newcomer's flood ring to all
workers unasked; a worker asks only if it does not come. A request stands until it is answered or its port
(under that epoch) is gone. It is repeated after ``REPEAT_S``, so a lost answer, or a restarted supervisor,
needs no code of its own. Without an answer, frames for a port without a ring are flooded (the engine holds
them back for at most ``REPEAT_S``).

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

A VM may send a request as soon as it is read, and be answered by broadcast. So it is read only when the flood
rings of all earlier ports are attached (``hears_all``), each from its present position. The flood ring of a
port that joins later is read from its start: the port may have heard our VM before we knew the port.

    our VM asks, port 7 hears it and answers     its introduction has not come to us yet
    port 7 is introduced, with its flood ring    which is read from its start, where the answer is

A port moves its floods to another ring when some port may not hear them any more. The new ring comes unasked
(``FloodRx``). If it does not, the next beat shows that the old one is over, and the new one is asked for.

A port without a worker has no flood ring, and no VM waits for it. Its next worker has a new one, which is
read from its start.

This file does not decide membership, and is not called per frame. The core refuses a ring with another epoch
than membership's, and it is forgotten here: the next request has the new epoch.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from forwarder._core import Engine
from forwarder.channel import close_all
from forwarder.messages import (
    MAX_FLOODS,
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
    WantFloods,
    WantRing,
)
from forwarder.names import MAX_PORTS, PortRecord, may_talk
from forwarder.replica import Changed, Joined, Left
from workers.own_settings import OwnSettings
from workers.pins import Pins

REPEAT_S = 1.0
"""A request is repeated after this time, and frames that wait for a ring are flooded. A living supervisor
answers in about a millisecond."""

IDLE_S = 25.0
"""Time between two checks for idle rings; a ring that is idle at two checks is given up, so within a
minute."""

NEVER = float("-inf")


class Request(NamedTuple):
    """A ring asked for."""

    epoch: int
    asked_at: float


class MissingFloods(NamedTuple):
    """The missing flood ring of a port."""

    since: float
    """When it was last asked for."""
    from_start: bool
    """Whether to read it from its start; otherwise from its position when it comes."""


class Early(NamedTuple):
    """A ring that came before its port."""

    epoch: int
    descriptors: tuple[int, ...]


class Links:
    """All links of one port."""

    def __init__(self, engine: Engine, own: PortRecord, send: Callable[[Message], None]) -> None:
        """``send`` passes a message to the supervisor, or drops it if there is none now."""
        self._engine = engine
        self._own = own
        self._epoch = own.epoch
        """The epoch of this worker; the table may still have the epoch of the worker before."""
        self._send = send
        self._records: dict[int, PortRecord] = {}
        self._floods: dict[int, MissingFloods] = {}
        """The missing flood rings, by port."""
        self._requested: set[int] = set()
        """The ports in the last request for flood rings."""
        self._unheard: set[int] = set()
        """Ports that are older than our VM and whose flood ring is still missing."""
        self._let_in = False
        self._rings: dict[int, Request] = {}
        self._early: dict[int, Early] = {}
        """Early halves of rings: they came before their port, or before its flood ring."""
        self._early_floods: dict[int, Early] = {}
        """Early flood rings."""
        self._left: dict[int, int] = {}
        """The last epoch of each port that has left, by number."""
        self._pins = Pins(engine, self._pinned_ports, self._say)
        self._used: set[int] = set()
        """Ports to which there is a ring."""
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
            if not isinstance(action, Left):
                self._set_policy(record)
            return
        if isinstance(action, Left):
            self._forget(record.port)
            return
        known = self._records.get(record.port)
        if known is None or known.epoch != record.epoch:
            self._engine.peer_join(record.port, record.epoch, record.born)
            is_new = record.epoch > self._left.get(record.port, 0)
            from_start = is_new and (self._let_in or record.epoch > self._epoch)
            self._floods[record.port] = MissingFloods(NEVER, from_start)
            if from_start:
                self._unheard.discard(record.port)
            else:
                self._unheard.add(record.port)
            self._rings.pop(record.port, None)
            self._used.discard(record.port)
        self._records[record.port] = record
        _discard(self._early, record.port, before=record.epoch)
        self._take_early_floods(record)
        self._set_reach(record)
        if known is None or known.policy.pinned != record.policy.pinned:
            self._pins.set(record)

    @property
    def hears_all(self) -> bool:
        """Whether the floods of all earlier ports are heard, so that our VM can be read."""
        return not self._unheard

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
            _keep(self._early, message.port, Early(message.epoch, tuple(descriptors)))
            return
        try:
            if isinstance(message, (Floods, FloodRx, Update)):
                self._receive_floods(message, descriptors)
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

    def _receive_floods(self, message: Floods | FloodRx | Update, descriptors: Sequence[int]) -> None:
        if isinstance(message, Floods):
            for (port, epoch), descriptor in zip(message.ports, descriptors, strict=True):
                self._attach_flood(port, epoch, descriptor)
            if len(message.ports) < MAX_FLOODS:  # the end of the answer: the others do not exist
                self._unheard -= self._requested
        elif isinstance(message, FloodRx):
            self._replace_flood(message, descriptors[0])
        else:
            for (port, epoch), descriptor in zip(message.floods, descriptors, strict=True):
                self._take_flood(port, epoch, descriptor)

    def _is_early(self, message: RingRx) -> bool:
        if self._is_to_come(message.port, message.epoch):
            return True
        record = self._records.get(message.port)
        return record is not None and record.epoch == message.epoch and message.port in self._floods

    def _is_to_come(self, port: int, epoch: int) -> bool:
        """Whether membership does not know a port under this epoch yet."""
        record = self._records.get(port)
        return epoch > (record.epoch if record is not None else self._left.get(port, 0))

    def _attach_early(self, port: int) -> None:
        early = self._early.get(port)
        if early is not None and early.epoch == self._records[port].epoch:
            with suppress(OSError):
                self._engine.attach_rx(port, early.epoch, *early.descriptors)
            _discard(self._early, port, before=early.epoch + 1)

    def _take_flood(self, port: int, epoch: int, descriptor: int) -> None:
        if port == self._own.port:
            return
        if self._is_to_come(port, epoch):
            _keep(self._early_floods, port, Early(epoch, (os.dup(descriptor),)))
        else:
            self._attach_flood(port, epoch, descriptor)

    def _take_early_floods(self, record: PortRecord) -> None:
        early = self._early_floods.get(record.port)
        if early is not None and early.epoch == record.epoch:
            with suppress(OSError):
                self._attach_flood(record.port, early.epoch, *early.descriptors)
        _discard(self._early_floods, record.port, before=record.epoch + 1)

    def _attach_flood(self, port: int, epoch: int, descriptor: int) -> None:
        record = self._records.get(port)
        if record is not None and record.epoch == epoch and port in self._floods:
            self._engine.attach_flood(port, epoch, descriptor, from_start=self._floods[port].from_start)
            del self._floods[port]
            self._unheard.discard(port)
            self._attach_early(port)

    def _replace_flood(self, message: FloodRx, descriptor: int) -> None:
        """Read the port's floods in another ring, from its start."""
        record = self._records.get(message.port)
        if record is None or record.epoch != message.epoch or message.port in self._floods:
            self._take_flood(message.port, message.epoch, descriptor)
        else:
            self._engine.attach_flood(message.port, message.epoch, descriptor, from_start=True)

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
        _discard(self._early, message.port, before=message.epoch + 1)
        if record is not None and record.epoch == message.epoch:
            self._engine.detach_rx(message.port)

    def _give_idle_up(self) -> None:
        """Give up rings that were idle at two checks, except those that wait to be opened."""
        idle = frozenset(self._engine.idle_rings())
        for port in idle & self._idle - self._rings.keys():
            if self._engine.detach_tx(port):
                self._used.discard(port)
                self._send(RingIdle(port, self._records[port].epoch))
        self._idle = idle

    def ask_for_moved(self) -> None:
        """Ask for the rings of ports that have moved their floods to another one."""
        for port in self._records.keys() - self._floods.keys():
            if self._engine.floods_are_over(port):
                self._floods[port] = MissingFloods(NEVER, from_start=True)

    def tick(self, now: float) -> None:
        """Ask for missing rings, and stop waiting for those that do not come."""
        due = [port for port, missing in self._floods.items() if now - missing.since >= REPEAT_S]
        if due:
            self._requested = set(due)
            self._send(WantFloods(tuple((port, self._records[port].epoch) for port in due)))
            for port in due:
                if self._floods[port].since > NEVER:
                    self._attach_early(port)
                self._floods[port] = self._floods[port]._replace(since=now)
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
        missing = (each.since for each in self._floods.values())
        asked = [*missing, *(request.asked_at for request in self._rings.values())]
        look_at = self._idle_at + IDLE_S if self._used else float("inf")
        return min(look_at, min(asked, default=float("inf")) + REPEAT_S)

    def _forget(self, port: int) -> None:
        record = self._records.pop(port, None)
        if record is None:
            return
        self._engine.pin(port, [])
        self._engine.peer_leave(port)
        self._left[port] = record.epoch
        _discard(self._early, port, before=record.epoch + 1)
        self._floods.pop(port, None)
        self._unheard.discard(port)
        self._rings.pop(port, None)
        self._used.discard(port)

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
            self._floods[port] = MissingFloods(NEVER, from_start=False)
        elif not reaches:
            self._floods.pop(port, None)
            self._unheard.discard(port)
            self._rings.pop(port, None)
            self._used.discard(port)
            _discard(self._early, port, before=record.epoch + 1)

    def _pinned_ports(self) -> list[PortRecord]:
        return [self._own, *self._records.values()]

    def _say(self, text: str) -> None:
        self._send(Note(text[:MAX_TEXT]))


def _keep(early: dict[int, Early], port: int, what: Early) -> None:
    """Keep an early ring in place of an earlier one."""
    _discard(early, port, before=what.epoch + 1)
    early[port] = what


def _discard(early: dict[int, Early], port: int, before: int) -> None:
    """Close early rings of epochs before that."""
    if port in early and early[port].epoch < before:
        close_all(early.pop(port).descriptors)

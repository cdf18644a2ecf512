"""Rings to and from the other ports, as membership and traffic ask for them.

Theory of operation. Membership says which ports exist and under which epoch; the engine says which of them
frames are addressed to. What is missing for that is asked of the supervisor: the flood ring of every
port, and a unicast ring to each port that is really talked to. A newcomer's flood ring the supervisor gives
to all unasked; it is asked for only if it does not come. Every request stands until it is answered or its
port (under that epoch) is gone; it is repeated after ``REPEAT_S``, so that a lost answer, or a supervisor
that came back, needs no code of its own. While nobody answers, frames for a port without a ring are flooded
(the engine holds them back for ``REPEAT_S`` at the most).

A ring is in use as soon as it is here, and sealed by that; the supervisor gives its other half away when it
has seen the seal, and says so (RingOpen). A ring that is not open after ``REPEAT_S`` is asked for again, and
the next one takes its place: its consumer may never have got it. A ring that has been empty and unused for
``IDLE_S`` is given up on both sides, since each costs its memory for as long as it is mapped.

A record carries the port's settings too. Its own a worker enforces on what its VM sends; of the others' it
needs the pinned addresses, which no other VM may use, and whether the two ports may talk, which both records
decide. A new peer's reach is set as soon as the engine knows it, when no frame of it can have come yet. The
engine has no ring, of either kind, to or from a port out of reach, and takes none.

The other half of a ring comes unasked, too, and a channel is quicker than membership: a neighbour that knows
us sooner than we know it, as every neighbour of a restarted worker does, fills its half already. So what
comes early is kept until membership says who it is from, and a half of a ring until the flood ring of that
port is there or was asked for in vain: what the port flooded before it knew us must not be overtaken by what
it then sends to us alone. At most one of each is kept for each port, and nothing of a port that has left:
what was under way then is as late as the other is early, and would wait for the next port of that number.

A VM may ask as soon as it is read, and be answered by broadcast. So it is read only when the floods of the
ports that were there before are heard (``hears_all``); those rings are read from where they stand. That of a
port that joins after that is read from its start: the port may have heard our VM before we heard of it.

    our VM asks, port 7 hears it and answers     its introduction has not come to us yet
    port 7 is introduced, with its flood ring    which is read from its start, where the answer is

A port whose worker is lost has no flood ring to be had, and nobody waits for it: its next worker has another,
which is read from its start.

Nothing here decides who is a member, and nothing here is called per frame. A ring of another epoch than
membership's is refused by the core and forgotten here: the next request asks with the epoch of then.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from forwarder._core import LARGEST_FRAME, LINK_BYTES, MAX_FRAME, TAKES_LARGE, Engine
from forwarder.channel import close_all
from forwarder.membership import Changed, Joined, Left
from forwarder.messages import (
    MAX_FLOODS,
    MAX_TEXT,
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
from forwarder.names import MAX_PORTS, SAY_THEMSELVES, TRANSPORT_KIND, Policy, PortRecord, may_talk, mtu_of
from workers.pins import Pins

REPEAT_S = 1.0
"""A request is repeated after this, and frames that wait for a ring are let go: a supervisor that lives
answers in about a millisecond."""

IDLE_S = 25.0
"""How often to look for rings that were not used since the last look but one: each goes within a minute."""

NEVER = float("-inf")


class Request(NamedTuple):
    """A ring asked for."""

    epoch: int
    asked_at: float


class MissingFloods(NamedTuple):
    """The flood ring of a port, which is to come."""

    since: float
    """When it was last asked for, or offered."""
    from_start: bool
    """Whether it is read from its start, not from where it stands when it comes."""


class Early(NamedTuple):
    """What came before its port did."""

    epoch: int
    descriptors: tuple[int, ...]


class Links:
    """All links of one port."""

    def __init__(self, engine: Engine, own: PortRecord, send: Callable[[Message], None]) -> None:
        """``send``: pass a message to the supervisor, or drop it if there is none now."""
        self._engine = engine
        self._own = own
        self._epoch = own.epoch
        """Of this worker; the table may have our port under the epoch of the worker before."""
        self._send = send
        self._records: dict[int, PortRecord] = {}
        self._floods: dict[int, MissingFloods] = {}
        """Of each port whose flood ring is missing."""
        self._requested: set[int] = set()
        """Ports whose flood ring the last request was for."""
        self._unheard: set[int] = set()
        """Ports that were there before our VM was let in, and whose flood ring is still to come."""
        self._let_in = False
        self._rings: dict[int, Request] = {}
        self._early: dict[int, Early] = {}
        """Ports whose half of a ring came before they, or their floods, did."""
        self._early_floods: dict[int, Early] = {}
        """The same of flood rings."""
        self._left: dict[int, int] = {}
        """The last epoch of each number whose port has left."""
        self._pins = Pins(engine, self._pinned_ports, self._say)
        self._used: set[int] = set()
        """Ports that a ring leads to."""
        self._idle: frozenset[int] = frozenset()
        """Ports whose ring was idle at the last look."""
        self._idle_at = NEVER
        self._limits: tuple[int, ...] = ()
        """Those in force: setting them again would grant another burst."""
        self._offloads: tuple[int, ...] = ()
        """Those in force: setting them again would forget what was sampled."""
        if own.epoch != own.born:
            # The MAC table outlived a worker, and with it the pins of ports that may be gone by now.
            for port in range(1, MAX_PORTS):
                engine.pin(port, [])
        self._set_policy(own)

    def apply(self, action: Joined | Changed | Left, offered_at: float = NEVER) -> None:
        """Take one change of membership; ``offered_at``: when its flood ring was to come unasked."""
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
            self._floods[record.port] = MissingFloods(offered_at, from_start)
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
        """Whether nothing that other ports flood from now on is missed, so that our VM can be let in."""
        return not self._unheard

    def let_in(self) -> None:
        """Note that our VM is read from now on."""
        self._let_in = True

    def want(self, ports: Sequence[int], now: float) -> None:
        """Frames wait for a ring to each of these ports."""
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
            if isinstance(message, Floods):
                for (port, epoch), descriptor in zip(message.ports, descriptors, strict=True):
                    self._attach_flood(port, epoch, descriptor)
                if len(message.ports) < MAX_FLOODS:  # the end of the answer: others are not to be had
                    self._unheard -= self._requested
            elif isinstance(message, Update) and descriptors and message.record.port != self._own.port:
                self._take_flood(message.record.port, message.record.epoch, descriptors[0])
            elif isinstance(message, Owners):
                self._engine.set_owners([(address, port) for address, port in message.owners])
            elif isinstance(message, RingTx):
                self._attach_tx(message, descriptors, now)
            elif isinstance(message, RingOpen):
                self._open(message)
            elif isinstance(message, RingOver):
                self._let_go_rx(message)
            elif isinstance(message, RingRx):
                self._engine.attach_rx(message.port, message.epoch, *descriptors)
        except OSError:
            # Of an epoch that is over here already, or not what it claims to be: as if it had not come.
            pass
        finally:
            close_all(descriptors)

    def _is_early(self, message: RingRx) -> bool:
        if self._is_to_come(message.port, message.epoch):
            return True
        record = self._records.get(message.port)
        return record is not None and record.epoch == message.epoch and message.port in self._floods

    def _is_to_come(self, port: int, epoch: int) -> bool:
        """Whether membership has not said anything yet of a port under this epoch."""
        record = self._records.get(port)
        return epoch > (record.epoch if record is not None else self._left.get(port, 0))

    def _attach_early(self, port: int) -> None:
        early = self._early.get(port)
        if early is not None and early.epoch == self._records[port].epoch:
            with suppress(OSError):
                self._engine.attach_rx(port, early.epoch, *early.descriptors)
            _discard(self._early, port, before=early.epoch + 1)

    def _take_flood(self, port: int, epoch: int, descriptor: int) -> None:
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
        """Give up the rings that have been idle for two looks, but those that wait to be opened."""
        idle = frozenset(self._engine.idle_rings())
        for port in idle & self._idle - self._rings.keys():
            if self._engine.detach_tx(port):
                self._used.discard(port)
                self._send(RingIdle(port, self._records[port].epoch))
        self._idle = idle

    def tick(self, now: float) -> None:
        """Ask for what is missing, and give up waiting for what does not come."""
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
        self._engine.set_flood_unknown(own.policy.flood_unknown)
        self._engine.set_guard(bool(own.policy.guard))
        self._set_limits(own.policy)
        self._set_offloads(own.policy)
        for record in self._records.values():
            self._set_reach(record)

    def _set_reach(self, record: PortRecord) -> None:
        """Talk to a port, or not. What came of one that is out of reach now went with the engine's rings."""
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

    def _set_limits(self, policy: Policy) -> None:
        broadcast, multicast, unknown = policy.broadcast_per_s, policy.multicast_per_s, policy.unknown_per_s
        limits = (broadcast, multicast, unknown, policy.bytes_per_s, policy.max_macs)
        if limits != self._limits:
            self._limits = limits
            self._engine.set_limits(
                broadcast=broadcast,
                multicast=multicast,
                unknown=unknown,
                bytes=policy.bytes_per_s,
                macs=policy.max_macs,
            )

    def _set_offloads(self, policy: Policy) -> None:
        mtu, large = mtu_of(policy), policy.receive == "large"
        undone, longest = mtu if policy.offload == "tso" else 0, mtu + LINK_BYTES if mtu else MAX_FRAME
        if (undone, longest, large) == self._offloads:
            return
        self._offloads = (undone, longest, large)
        self._engine.limit(MAX_FRAME if large else longest)
        if TRANSPORT_KIND[self._own.transport] not in SAY_THEMSELVES:
            self._engine.infer(undone)
            self._engine.take(TAKES_LARGE if large else 0, LARGEST_FRAME if large else MAX_FRAME)


def _keep(early: dict[int, Early], port: int, what: Early) -> None:
    """Keep what came early, in the place of what did before."""
    _discard(early, port, before=what.epoch + 1)
    early[port] = what


def _discard(early: dict[int, Early], port: int, before: int) -> None:
    """Close what came early for an epoch before that."""
    if port in early and early[port].epoch < before:
        close_all(early.pop(port).descriptors)

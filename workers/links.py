"""Rings to and from the other ports, as membership and traffic ask for them.

Theory of operation. Membership says which ports exist and under which epoch; the engine says which of them
frames are addressed to. What is missing for that is asked of the supervisor: the flood ring of every
port, and a unicast ring to each port that is really talked to. Every request stands until it is answered or
its port (under that epoch) is gone; it is repeated after ``REPEAT_S``, so that a lost answer, or a
supervisor that came back, needs no code of its own. While nobody answers, frames for a port without a ring
are flooded (the engine holds them back for ``REPEAT_S`` at the most).

Nothing here decides who is a member, and nothing here is called per frame. A ring of another epoch than
membership's is refused by the core and forgotten here: the next request asks with the epoch of then.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from forwarder._core import Engine
from forwarder.membership import Changed, Joined, Left
from forwarder.names import PortRecord
from forwarder.wire import Floods, Message, RingRx, RingTx, WantFloods, WantRing

REPEAT_S = 1.0
"""A request is repeated after this, and frames that wait for a ring are let go: a supervisor that lives
answers in about a millisecond."""


class Request(NamedTuple):
    """A ring asked for."""

    epoch: int
    asked_at: float


class Links:
    """All links of one port."""

    def __init__(self, engine: Engine, own: PortRecord, send: Callable[[Message], None]) -> None:
        """``send``: pass a message to the supervisor, or drop it if there is none now."""
        self._engine = engine
        self._own = own
        self._send = send
        self._records: dict[int, PortRecord] = {}
        self._floods: dict[int, float] = {}
        """Ports whose flood ring is missing, and when it was last asked for (-inf: never)."""
        self._rings: dict[int, Request] = {}
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
            self._floods[record.port] = float("-inf")
            self._rings.pop(record.port, None)
        if known is None or known.policy.pinned != record.policy.pinned:
            self._engine.pin(record.port, list(record.policy.pinned))
        self._records[record.port] = record

    def want(self, ports: Sequence[int], now: float) -> None:
        """Frames wait for a ring to each of these ports."""
        for port in ports:
            record = self._records.get(port)
            if record is not None and port not in self._rings:
                self._rings[port] = Request(record.epoch, now)
                self._send(WantRing(port, record.epoch))

    def receive(self, message: Message, descriptors: Sequence[int]) -> None:
        """Take an answer of the supervisor; its descriptors are closed or used here."""
        try:
            if isinstance(message, Floods):
                for (port, epoch), descriptor in zip(message.ports, descriptors, strict=True):
                    self._attach_flood(port, epoch, descriptor)
            elif isinstance(message, RingTx):
                self._attach_tx(message.port, message.epoch, *descriptors)
            elif isinstance(message, RingRx):
                self._engine.attach_rx(message.port, message.epoch, descriptors[0])
        except OSError:
            # Of an epoch that is over here already, or not what it claims to be: as if it had not come.
            pass
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _attach_flood(self, port: int, epoch: int, descriptor: int) -> None:
        record = self._records.get(port)
        if record is not None and record.epoch == epoch and port in self._floods:
            self._engine.attach_flood(port, epoch, descriptor)
            del self._floods[port]

    def _attach_tx(self, port: int, epoch: int, ring: int, doorbell: int) -> None:
        bell = os.dup(doorbell)
        try:
            self._engine.attach_tx(port, epoch, ring, bell)
        except OSError:
            os.close(bell)
            raise
        self._rings.pop(port, None)

    def tick(self, now: float) -> None:
        """Ask for what is missing, and give up waiting for what does not come."""
        due = [port for port, asked_at in self._floods.items() if now - asked_at >= REPEAT_S]
        if due:
            self._send(WantFloods(tuple((port, self._records[port].epoch) for port in due)))
            self._floods.update(dict.fromkeys(due, now))
        for port, request in list(self._rings.items()):
            if now - request.asked_at >= REPEAT_S:
                self._engine.give_up_ring(port)
                self._send(WantRing(port, request.epoch))
                self._rings[port] = request._replace(asked_at=now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        asked = [*self._floods.values(), *(request.asked_at for request in self._rings.values())]
        return min(asked, default=float("inf")) + REPEAT_S

    def _forget(self, port: int) -> None:
        if self._records.pop(port, None) is None:
            return
        self._engine.pin(port, [])
        self._engine.peer_leave(port)
        self._floods.pop(port, None)
        self._rings.pop(port, None)

    def _set_policy(self, own: PortRecord) -> None:
        self._own = own
        self._engine.pin(own.port, list(own.policy.pinned))
        self._engine.set_flood_unknown(own.policy.flood_unknown)

"""The flood rings of the other ports: ask for the missing ones, attach them, and say when our VM can be read.

Theory of operation. The supervisor sends a newcomer's flood ring to all workers unasked; a worker asks for
one only if it does not come, again and again (``REPEAT_S``). A ring that comes before membership knows its
port is kept until then.

A VM may send a request as soon as it is read, and be answered by broadcast. So it is read only when the flood
rings of all earlier ports are attached (``hears_all``), each from its present position. The flood ring of a
port that joins later is read from its start: the port may have heard our VM before we knew the port.

    our VM asks, port 7 hears it and answers     its introduction has not come to us yet
    port 7 is introduced, with its flood ring    which is read from its start, where the answer is

A reserved port (without a name) has no VM yet: it is younger than our VM, whatever its epoch is.

A port moves its floods to another ring when some port may not hear them any more. The new ring comes unasked
(``FloodRx``). If it does not, the next beat shows that the old one is over, and the new one is asked for.

A port without a worker has no flood ring, and no VM waits for it. Its next worker has a new one, which is
read from its start.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from forwarder._core import Engine
from forwarder.messages import MAX_FLOODS, FloodRx, Floods, Message, Update, WantFloods
from forwarder.names import PortRecord
from workers.early import Early, discard, keep

REPEAT_S = 1.0
"""A request is repeated after this time. A living supervisor answers in about a millisecond."""

NEVER = float("-inf")


class MissingFloods(NamedTuple):
    """The missing flood ring of a port."""

    since: float
    """When it was last asked for."""
    from_start: bool
    """Whether to read it from its start; otherwise from its position when it comes."""


class FloodRings:
    """The flood rings that one port reads."""

    def __init__(
        self,
        engine: Engine,
        own: PortRecord,
        records: Mapping[int, PortRecord],
        send: Callable[[Message], None],
        *,
        is_to_come: Callable[[int, int], bool],
        attached: Callable[[int], None],
    ) -> None:
        """Begin without any.

        ``records``: the other ports, as membership has them. ``send`` passes a message to the supervisor.
        ``is_to_come``: whether membership does not know a port under this epoch yet. ``attached`` is called
        when a port's flood ring is attached, or does not come.
        """
        self._engine = engine
        self._own = own.port
        self._records = records
        self._send = send
        self._is_to_come = is_to_come
        self._attached = attached
        self._missing: dict[int, MissingFloods] = {}
        """By port."""
        self._requested: set[int] = set()
        """The ports in the last request."""
        self._unheard: set[int] = set()
        """Ports that are older than our VM and whose flood ring is still missing."""
        self.early: dict[int, Early] = {}
        """Rings of ports that membership does not know yet."""

    @property
    def hears_all(self) -> bool:
        """Whether the floods of all earlier ports are heard, so that our VM can be read."""
        return not self._unheard

    def misses(self, port: int) -> bool:
        """Whether a port's flood ring is missing."""
        return port in self._missing

    def joined(self, port: int, *, from_start: bool) -> None:
        """Wait for the ring of a port that is new under this epoch."""
        self._missing[port] = MissingFloods(NEVER, from_start)
        if from_start:
            self._unheard.discard(port)
        else:
            self._unheard.add(port)

    def known(self, record: PortRecord) -> None:
        """Attach the ring that came before membership knew this record."""
        early = self.early.get(record.port)
        if early is not None and early.epoch == record.epoch:
            with suppress(OSError):
                self._attach(record.port, early.epoch, *early.descriptors)
        discard(self.early, record.port, before=record.epoch + 1)

    def in_reach(self, port: int) -> None:
        """Wait for the ring of a port that may be talked to again."""
        self._missing[port] = MissingFloods(NEVER, from_start=False)

    def forget(self, port: int) -> None:
        """Wait no more for the ring of a port that has left, or is out of reach."""
        self._missing.pop(port, None)
        self._unheard.discard(port)

    def receive(self, message: Floods | FloodRx | Update, descriptors: Sequence[int]) -> None:
        """Take rings; the caller closes the descriptors. Raises OSError: one is not valid (any more)."""
        if isinstance(message, Floods):
            for (port, epoch), descriptor in zip(message.ports, descriptors, strict=True):
                self._attach(port, epoch, descriptor)
            if len(message.ports) < MAX_FLOODS:  # the end of the answer: the others do not exist
                self._unheard -= self._requested
        elif isinstance(message, FloodRx):
            self._replace(message, descriptors[0])
        else:
            for (port, epoch), descriptor in zip(message.floods, descriptors, strict=True):
                self._take(port, epoch, descriptor)

    def ask_for_moved(self) -> None:
        """Ask for the rings of ports that have moved their floods to another one."""
        for port in self._records.keys() - self._missing.keys():
            if self._engine.floods_are_over(port):
                self._missing[port] = MissingFloods(NEVER, from_start=True)

    def tick(self, now: float) -> None:
        """Ask for missing rings."""
        due = [port for port, missing in self._missing.items() if now - missing.since >= REPEAT_S]
        if not due:
            return
        self._requested = set(due)
        self._send(WantFloods(tuple((port, self._records[port].epoch) for port in due)))
        for port in due:
            if self._missing[port].since > NEVER:
                self._attached(port)
            self._missing[port] = self._missing[port]._replace(since=now)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min((each.since for each in self._missing.values()), default=float("inf")) + REPEAT_S

    def _take(self, port: int, epoch: int, descriptor: int) -> None:
        if port == self._own:
            return
        if self._is_to_come(port, epoch):
            keep(self.early, port, Early(epoch, (os.dup(descriptor),)))
        else:
            self._attach(port, epoch, descriptor)

    def _attach(self, port: int, epoch: int, descriptor: int) -> None:
        record = self._records.get(port)
        if record is not None and record.epoch == epoch and port in self._missing:
            self._engine.attach_flood(port, epoch, descriptor, from_start=self._missing[port].from_start)
            del self._missing[port]
            self._unheard.discard(port)
            self._attached(port)

    def _replace(self, message: FloodRx, descriptor: int) -> None:
        """Read the port's floods in another ring, from its start."""
        record = self._records.get(message.port)
        if record is None or record.epoch != message.epoch or message.port in self._missing:
            self._take(message.port, message.epoch, descriptor)
        else:
            self._engine.attach_flood(message.port, message.epoch, descriptor, from_start=True)

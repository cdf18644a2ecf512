"""Give rings to workers: the only place that passes shared memory on.

Theory of operation. A ring leads from one worker (the producer) to another (the consumer), and only between
two ports that may talk. The same holds for flood rings, which a worker asks for by port. The registry's
records decide, not the belief of either worker.

A unicast ring is given away in four steps:

    producer → WantRing                a frame waits for it
    RingTx → producer                  ring, tail and doorbell; mapping it for writing seals it
    producer → RingSealed              the supervisor checks the seal itself
    RingRx → consumer, RingOpen → producer

so a consumer never has a descriptor that could be mapped for writing. RingOpen goes out once the kernel has
the consumer's half: a half that still waits here would be lost with this process or that channel, and the
producer would fill a ring without a reader. A request that cannot be met gets no answer: the worker repeats
it (``links.REPEAT_S``) while its membership has the port.

Example: port 1 sends to port 2 for the first time. WantRing(2), RingTx(2), RingSealed(2), RingRx(1) to the
other, RingOpen(2): about a tenth of a millisecond, in which port 1's frames wait in its ring. A minute after
the last frame port 1 sends RingIdle(2), port 2 gets RingOver(1), and the memory is freed.

When two ports may not talk any more, both workers unmap the rings between them, and an offer is not opened.
A flood ring has more readers: ``flood_moves`` takes it back. That of a reserved port has no writer yet, which
would seal it: its readers get a read-only descriptor (``fd_store``), which a worker cannot open again in its
cell.

An offer (a ring between RingTx and RingSealed) holds descriptors, so a worker has at most ``OFFERS`` of them.
A worker that does not read its channel is given none (``WorkerChannel.reads``): descriptors that wait in the
kernel count for all processes of the user, and those that wait here are missing to accept VMs.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from forwarder.channel import close_all
from forwarder.errors import LocalError, PeerError
from forwarder.messages import (
    MAX_FLOODS,
    FloodMoved,
    Floods,
    RingIdle,
    RingOpen,
    RingOver,
    RingRx,
    RingSealed,
    RingTx,
    WantFloods,
    WantRing,
)
from forwarder.names import MAX_PORTS, Incarnation, PortRecord, may_talk
from supervisor.base.logs import Throttle
from supervisor.pool.channels import RingMessage, WorkerChannel, WorkerChannels
from supervisor.rings.fd_store import FdStore, is_sealed, make_ring
from supervisor.rings.flood_moves import FloodMoves
from supervisor.rings.owner import RingOwner

OFFERS = 256
"""Offered rings that a worker has not sealed yet, at most."""
AGAIN_S, LONGEST_S = 0.5, 16.0
"""The shortest time between two rings of one pair of workers, which doubles from the first to the second:
each costs its consumer some system calls. The next worker of a port gets its rings at once. The second is
shorter than the time in which a worker gives an idle ring up (``workers.links``)."""
MOST = 64
"""Rings of one pair of workers. A worker gives a ring up eight times at most, and asks again when none is
opened; a hostile one may keep the memory of all, which no limit of the process counts, and is replaced.
When an operator parts two ports, one ring less counts, as an honest worker has no other."""


class Offer(NamedTuple):
    """A ring that its producer has and its consumer has not yet."""

    source_epoch: int
    epoch: int
    reading: int
    tail: int


class Rings:
    """All offers."""

    def __init__(
        self, channels: WorkerChannels, fd_store: FdStore, owner: RingOwner, moved: Callable[[int], None]
    ) -> None:
        """Call ``moved`` as ``FloodMoves`` does."""
        self._channels = channels
        self._fd_store = fd_store
        self._owner = owner
        self.moves = FloodMoves(channels, fd_store, owner, moved)
        self._throttle = Throttle()
        self._offers: dict[int, dict[int, Offer]] = {}
        """By the producer's port, then by the consumer's."""
        self._made_at: dict[tuple[Incarnation, Incarnation], float] = {}
        """When the last ring of a pair was made, if that is less than LONGEST_S ago; in order of time."""
        self._made: dict[int, bytearray] = {}
        """How many rings a port's worker has got and not lost, by its port, to each other port's worker."""

    def asked(self, served: Incarnation, worker: WorkerChannel, message: RingMessage, now: float) -> None:
        """Take a worker's message about rings. Raises PeerError for one that our workers never send."""
        record = self._owner.record(served)
        if record is None:
            return
        match message:
            case WantRing() | WantFloods() if not worker.reads:
                return
            case WantRing(port, epoch):
                self._offer(worker, record, port, epoch, now)
            case RingSealed(port, epoch):
                self._open(worker, record, port, epoch)
            case RingIdle(port, epoch):
                self._end(record, port, epoch)
            case WantFloods(ports):
                self._give_floods(worker, record, ports)
            case FloodMoved():
                self.moves.answered(served)

    def changing(self, before: PortRecord | None, after: PortRecord, now: float) -> None:
        """Take rings back that a change of a port's record forbids; give those that it allows at once."""
        if before is None or before.incarnation != after.incarnation:
            return
        self._made_at = {pair: at for pair, at in self._made_at.items() if after.incarnation not in pair}
        parted = [
            other.incarnation
            for other in self._owner.records()
            if other.port != after.port and may_talk(before, other) and not may_talk(after, other)
        ]
        for other in parted:
            self._take_back(after.port, other.port)
            self._take_back(other.port, after.port)
        self.moves.part(after.incarnation, parted, now)

    def forget(self, port: int) -> None:
        """Close the offers from and to a port whose worker, or its channel, is gone."""
        for offer in self._offers.pop(port, {}).values():
            close_all((offer.reading, offer.tail))
        for offers in self._offers.values():
            gone = offers.pop(port, None)
            if gone is not None:
                close_all((gone.reading, gone.tail))

    def returned(self, served: Incarnation) -> None:
        """Go on with a worker that has another channel; what it misses of offers, it asks for again."""
        self.moves.returned(served)

    def worker_gone(self, port: int) -> None:
        """Begin anew for the next worker of a port: this one has ended, and has no ring any more."""
        self.moves.forget(port)
        self._made.pop(port, None)
        for made in self._made.values():
            made[port] = 0

    def close(self) -> None:
        """Close everything."""
        for port in list(self._offers):
            self.forget(port)
        self.moves.close()

    def _take_back(self, source: int, port: int) -> None:
        """Do not count the ring that a worker has to this port: it is to unmap that."""
        made = self._made.get(source)
        if made is not None and made[port]:
            made[port] -= 1

    def _consumer(self, record: PortRecord, port: int, epoch: int) -> WorkerChannel | None:
        """Return the worker of a port, if the port may talk to that of ``record``."""
        other = self._owner.holder(port, epoch)
        theirs = self._owner.record(Incarnation(port, epoch))
        if other is None or theirs is None or port == record.port:
            return None
        if not may_talk(record, theirs):
            self._throttle.warning(
                "reach", f"port {record.port} asks for port {port}, out of its reach: refused"
            )
            return None
        return other

    def _offer(self, worker: WorkerChannel, record: PortRecord, port: int, epoch: int, now: float) -> None:
        other = self._consumer(record, port, epoch)
        held, theirs = self._fd_store.get(port), self._owner.record(Incarnation(port, epoch))
        if other is None or theirs is None or held is None or other.channel.backlog:
            return
        pair = (record.incarnation, Incarnation(port, epoch))
        offers = self._offers.setdefault(record.port, {})
        made = self._made.setdefault(record.port, bytearray(MAX_PORTS))
        pause = min(AGAIN_S * 2 ** max(0, made[port] - 1), LONGEST_S)
        if now - self._made_at.get(pair, now - pause) < pause or len(offers) >= OFFERS:
            return
        if made[port] >= MOST:
            why = f"port {record.port} asks for ring after ring to port {port}: its worker is replaced"
            self._throttle.warning("rings", why)
            self._owner.replace(record.incarnation)
            return
        try:
            ring = make_ring(record, theirs)
        except LocalError as error:
            self._throttle.warning("ring", f"port {record.port} gets no ring to port {port}: {error}")
            return
        before = offers.pop(port, None)
        if before is not None:
            close_all((before.reading, before.tail))
        self._note_made(pair, now)
        made[port] += 1
        sent = self._channels.send(worker, RingTx(port, epoch), (ring.writing, ring.tail, held.doorbell))
        close_all((ring.writing,))
        if sent:
            offers[port] = Offer(record.epoch, epoch, ring.reading, ring.tail)
        else:
            close_all((ring.reading, ring.tail))

    def _note_made(self, pair: tuple[Incarnation, Incarnation], now: float) -> None:
        self._made_at.pop(pair, None)
        self._made_at[pair] = now
        while True:
            oldest = next(iter(self._made_at))
            if now - self._made_at[oldest] < LONGEST_S:
                return
            del self._made_at[oldest]

    def _open(self, worker: WorkerChannel, record: PortRecord, port: int, epoch: int) -> None:
        offer = self._offers.get(record.port, {}).get(port)
        if offer is None or (offer.source_epoch, offer.epoch) != (record.epoch, epoch):
            return
        del self._offers[record.port][port]
        try:
            if not is_sealed(offer.reading):
                raise PeerError(f"a ring to port {port} is reported as sealed, but it is not")
            other = self._consumer(record, port, epoch)
            if other is None or other.channel.backlog:
                return
            half = RingRx(record.port, record.epoch)
            if self._channels.send(other, half, (offer.reading, offer.tail)) and not other.channel.backlog:
                self._channels.send(worker, RingOpen(port, epoch))
        finally:
            close_all((offer.reading, offer.tail))

    def _end(self, record: PortRecord, port: int, epoch: int) -> None:
        other = self._owner.holder(port, epoch)
        if other is not None and port != record.port:
            self._channels.send(other, RingOver(record.port, record.epoch))

    def _give_floods(
        self, worker: WorkerChannel, record: PortRecord, ports: tuple[tuple[int, int], ...]
    ) -> None:
        """Send the existing flood rings; a message with fewer than MAX_FLOODS ends the answer."""
        found: list[tuple[tuple[int, int], int]] = []
        for port, epoch in ports:
            flood = self._flood_for(record, Incarnation(port, epoch))
            if flood is not None:
                found.append(((port, epoch), flood))
        for start in range(0, len(found) + 1, MAX_FLOODS):
            part = found[start : start + MAX_FLOODS]
            with suppress(LocalError):  # no descriptors left to queue it; the worker asks again
                self._channels.send(
                    worker, Floods(tuple(link for link, _ in part)), tuple(fd for _, fd in part)
                )

    def _flood_for(self, record: PortRecord, wanted: Incarnation) -> int | None:
        """Return the flood ring of a port, if it exists and the port of ``record`` may read it."""
        reserved = self._owner.reserved(wanted)
        if reserved is not None:
            may_read = may_talk(record, reserved)
        else:
            may_read = not self.moves.is_changing(wanted.port) and self._consumer(record, *wanted) is not None
        return self._fd_store.flood(wanted) if may_read else None

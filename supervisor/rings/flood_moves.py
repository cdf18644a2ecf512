"""Move a port's floods to another ring when some port may not hear them any more.

Theory of operation. A worker that has mapped a flood ring can read it for as long as it lives, whatever its
membership says, and a guest may have taken it over. So when a change of settings takes two ports out of each
other's reach, each of both gets another flood ring, and the old one falls silent. The new ring goes to those
that may hear the port now:

    FloodTx → writer          it moves, which seals the ring, and says in the old ring that this one is over
    FloodMoved → supervisor   checks the seal itself; newcomers get the new ring from now on
    FloodRx → each reader     reads the old ring to its end and the new one from its start: nothing is lost

A reader whose FloodRx is lost (no descriptors, or another supervisor) sees that its ring is over and asks, as
it asks for every missing ring (``workers.links``). A unicast ring needs no move: it has one reader and one
writer, and the honest one of both unmaps it. A worker that does not move within ``ANSWER_S`` is replaced, and
its successor has a new ring anyway. If its channel is lost, the move goes on over the next one, and its time
counts on: a worker cannot put it off. ``moved`` is called for each port whose floods have moved, and are not
to move again: an operator waits for that (``confirmations``).

The others have the ring of a port that was reserved (``reserve``) before its worker forwards. It moves as
soon as the worker forwards (``hurry``), before the VM is read.

Example: ports 1 to 4 talk, and ``set`` isolates port 2, with reach to port 1. Ports 3 and 4 do not hear port
2 any more, nor does port 2 hear them: ports 2, 3 and 4 move. Port 2's ring goes to 1, port 3's to 1 and 4,
port 4's to 1 and 3. Port 1 keeps its ring.
"""

from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from forwarder import _core
from forwarder.channel import close_all
from forwarder.errors import LocalError, PeerError
from forwarder.messages import FloodRx, FloodTx
from forwarder.names import FLOOD_BYTES, Incarnation, may_talk
from supervisor.base.logs import Throttle
from supervisor.pool.channels import WorkerChannel, WorkerChannels
from supervisor.rings.fd_store import FdStore, is_sealed
from supervisor.rings.owner import RingOwner

ANSWER_S = 10.0
"""A worker that has not moved after this time is replaced; a living one takes a millisecond."""
AT_ONCE = 16
"""Messages in one turn of the loop: with 250 ports one ``set`` may bring 60,000."""
AGAIN_S = 0.5
"""Pause after a lack of descriptors or memory."""


class Move(NamedTuple):
    """A move that its worker has not answered."""

    epoch: int
    ring: int
    deadline: float


class FloodMoves:
    """The moves that are due or under way."""

    def __init__(
        self,
        channels: WorkerChannels,
        fd_store: FdStore,
        owner: RingOwner,
        moved: Callable[[int], None],
    ) -> None:
        self._channels = channels
        self._fd_store = fd_store
        self._owner = owner
        self._moved = moved
        self._throttle = Throttle()
        self._due: dict[Incarnation, float] = {}
        """The ports to move, in order, and when."""
        self._moves: dict[int, Move] = {}
        self._to_give: deque[tuple[WorkerChannel, Incarnation]] = deque()
        """The readers that have still to get a ring, and whose ring it is."""
        self._giving: Counter[int] = Counter()
        """How many of them there are, by the port whose ring it is."""

    def part(self, port: Incarnation, others: list[Incarnation], now: float) -> None:
        """Move the floods of ports that a change has taken out of each other's reach."""
        for each in [port, *others] if others else []:
            self._due[each] = now

    def hurry(self, incarnation: Incarnation, now: float) -> None:
        """Move a port's floods now, if they are to move: its worker forwards, and does not read its VM."""
        if self._due.pop(incarnation, None) is not None:
            self._begin(incarnation, now)

    def under_way(self) -> set[int]:
        """Return the ports whose floods are to move, or have not moved yet."""
        return {each.port for each in self._due} | self._moves.keys()

    def is_changing(self, port: int) -> bool:
        """Whether the port's floods move now, so that readers that ask are to wait for FloodRx.

        Otherwise a reader that sees that its ring is over could ask before FloodMoved has come, get the old
        ring again, and read it a second time from its start.
        """
        return port in self._moves or self._giving[port] > 0

    def answered(self, served: Incarnation) -> None:
        """Take a worker's answer. Raises PeerError for one that our workers never send."""
        move = self._moves.pop(served.port, None)
        if move is None or move.epoch != served.epoch:
            raise PeerError(f"port {served.port} has moved its floods, and was not told to")
        if not is_sealed(move.ring):
            self._moves[served.port] = move
            raise PeerError("a flood ring is reported as sealed, but it is not")
        self._fd_store.replace_flood(served, move.ring)
        readers = self._channels.holders()
        self._to_give.extend((worker, served) for worker in readers)
        self._giving[served.port] += len(readers)
        if served not in self._due:
            self._moved(served.port)

    def returned(self, served: Incarnation) -> None:
        """Go on with a move whose worker has another channel: FloodTx or FloodMoved may be lost.

        The worker has read all of its last channel. So the seal says whether it has got its ring.
        """
        move = self._moves.get(served.port)
        if move is None:
            return
        if is_sealed(move.ring):
            self.answered(served)
        else:
            self._tell(served, move.ring)

    def tick(self, now: float) -> bool:
        """Do what is due; return whether there is more to do at once."""
        for port, move in list(self._moves.items()):
            if now >= move.deadline:
                self._give_up(port, move)
        due = [each for each, at in self._due.items() if now >= at and each.port not in self._moves]
        for incarnation in due[:AT_ONCE]:
            del self._due[incarnation]
            self._begin(incarnation, now)
        for _ in range(min(AT_ONCE, len(self._to_give))):
            self._give_next()
        return len(due) > AT_ONCE or bool(self._to_give)

    def deadline(self) -> float:
        """When ``tick`` has something to do, unless it has returned that it has."""
        due = (at for each, at in self._due.items() if each.port not in self._moves)
        return min((*due, *(move.deadline for move in self._moves.values())), default=float("inf"))

    def forget(self, port: int) -> None:
        """Forget the move of a port whose worker has ended."""
        move = self._moves.pop(port, None)
        if move is not None:
            close_all((move.ring,))

    def close(self) -> None:
        """Close everything."""
        for port in list(self._moves):
            self.forget(port)

    def _begin(self, incarnation: Incarnation, now: float) -> None:
        if not self._owner.is_live(incarnation):
            if self._owner.reserved(incarnation) is not None:
                self._due[incarnation] = now + AGAIN_S  # others have its ring already
            else:
                self._moved(incarnation.port)  # its next worker has another ring
            return
        try:
            ring = _core.flood_create(FLOOD_BYTES, *incarnation)
        except (OSError, MemoryError) as error:
            why = f"port {incarnation.port} keeps its flood ring for now: {error}"
            self._throttle.warning("ring", why)
            self._due[incarnation] = now + AGAIN_S
            return
        self._moves[incarnation.port] = Move(incarnation.epoch, ring, now + ANSWER_S)
        self._tell(incarnation, ring)

    def _tell(self, served: Incarnation, ring: int) -> None:
        worker = self._owner.holder(*served)
        if worker is not None:  # or it is told when it has a channel again
            self._channels.send(worker, FloodTx(), (ring,))

    def _give_next(self) -> None:
        worker, moved = self._to_give.popleft()
        self._giving[moved.port] -= 1
        self._give(worker, moved)

    def _give(self, worker: WorkerChannel, moved: Incarnation) -> None:
        """Send a port's present ring to one reader, if it may have it."""
        held = self._fd_store.get(moved.port)
        reader = None if worker.served is None else self._owner.record(worker.served)
        record = self._owner.record(moved)
        if held is None or reader is None or record is None or held.flood_epoch != moved.epoch:
            return
        if reader.port != record.port and may_talk(reader, record):
            with suppress(LocalError):  # no descriptors left to queue it; the worker asks
                self._channels.send(worker, FloodRx(*moved), (held.flood,))

    def _give_up(self, port: int, move: Move) -> None:
        self.forget(port)
        served = Incarnation(port, move.epoch)
        if self._owner.is_live(served):
            self._throttle.warning(
                "late", f"port {port}: its worker does not leave its flood ring; it is replaced"
            )
            self._owner.replace(served)

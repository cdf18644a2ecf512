"""The channels to workers: one for each worker process; check and deliver its messages.

Theory of operation. The supervisor makes a channel together with a worker's process, or dials a worker that
it takes over (``dialer``). So it knows the process at the other end and the port that it gave it. No message
carries either, so a worker cannot speak for another one. A worker's first message is Ready (a spare) or Claim
(it brings its port). After that it reports (Hello, Heartbeat, Goodbye, Note), asks for the table, and asks
for rings (``rings``). ``ChannelHandler`` decides what a report means.

The rate of each worker's messages is limited (``BURST``, ``RATE``). If a worker sends more, its channel is
not read until its allowance has grown again. The kernel holds this worker back, and no other worker is
affected.

A channel that ends, or whose worker does not read, is closed and reported once by ``lost``. A send may notice
that first, while the worker's last messages, a Goodbye among them, are unread. So they are read before the
channel is closed, in the next ``tick``. The sender may be telling all workers something, and what a Goodbye
causes would get in between.
"""

from collections.abc import Callable
from typing import Protocol

from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.errors import PeerError
from forwarder.loop import READ, WRITE, Loop
from forwarder.messages import (
    Claim,
    FloodMoved,
    Goodbye,
    Guarded,
    Heartbeat,
    Hello,
    KeepSession,
    Message,
    Note,
    Ready,
    RingIdle,
    RingSealed,
    SnapshotRequest,
    WantFloods,
    WantRing,
)
from forwarder.names import MAX_PORTS, Cell, Identity, Incarnation
from supervisor.base.allowance import Allowance
from supervisor.base.logs import Throttle

BURST = 4 * MAX_PORTS
"""The largest allowance of a worker: two messages for a ring to each port, twice."""

RATE = 1000.0
"""Messages a second by which the allowance grows; a worker at work sends a handful."""

UNREAD = 32 << 10
"""Bytes, as the kernel counts them, that a worker may leave unread and still be answered: dozens of messages.
A worker at work reads its channel before it asks."""


Report = Hello | Heartbeat | Goodbye | Guarded | Note | SnapshotRequest
"""What a worker says about its port."""
RingMessage = WantRing | WantFloods | RingSealed | RingIdle | FloodMoved
"""What a worker says about rings."""


class WorkerChannel:
    """One worker's channel."""

    __slots__ = (
        "allowance",
        "cell",
        "channel",
        "identity",
        "introduced",
        "served",
    )

    def __init__(self, channel: Channel, identity: Identity, now: float) -> None:
        self.channel = channel
        self.allowance = Allowance(BURST, RATE, now)
        self.identity = identity
        self.introduced = False
        """Whether the worker's first message has come."""
        self.cell: Cell | None = None
        """Known after its first message."""
        self.served: Incarnation | None = None
        """The port that it was given, or that it brought."""

    @property
    def pid(self) -> int:
        """The process at the other end."""
        return self.identity.pid

    @property
    def reads(self) -> bool:
        """Whether the worker reads what it is sent; otherwise what it asks for is not worth an answer.

        Our workers ask again.
        """
        return not self.channel.backlog and self.channel.unread <= UNREAD


class ChannelHandler(Protocol):
    """The part that decides about workers; called from the loop."""

    def ready(self, worker: WorkerChannel, layout: int, proc: tuple[int, ...]) -> None:
        """Take a spare worker that waits for a port; the owner closes the descriptors."""

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        """Take or refuse a worker that brings a port; the owner closes the descriptors."""

    def reported(self, served: Incarnation, worker: WorkerChannel, report: Report) -> None:
        """Take a worker's report about its port."""

    def asked(self, served: Incarnation, worker: WorkerChannel, message: RingMessage) -> None:
        """Take a worker's message about rings. Raises PeerError for one that our workers never send."""

    def kept(self, served: Incarnation, message: KeepSession, descriptors: tuple[int, ...]) -> None:
        """Store a worker's session for its successor; the owner closes the descriptors.

        Raises PeerError if the worker's port has no session.
        """

    def lost(self, worker: WorkerChannel) -> None:
        """Note that a channel has ended."""


class WorkerChannels:
    """All channels."""

    def __init__(self, loop: Loop, owner: ChannelHandler, clock: Callable[[], float]) -> None:
        """``clock``: monotonic seconds."""
        self._loop = loop
        self._owner = owner
        self._clock = clock
        self._throttle = Throttle()
        self._workers: dict[WorkerChannel, None] = {}
        """The channels in the order in which they came."""
        self._held: set[WorkerChannel] = set()
        """The channels that are not read now."""
        self._broken: set[WorkerChannel] = set()
        """The channels over which nothing can be sent any more, to be closed in the next ``tick``."""

    def add(self, identity: Identity, channel: Channel) -> None:
        """Take over the channel of that process."""
        worker = WorkerChannel(channel, identity, self._clock())
        self._workers[worker] = None
        self._watch(worker)

    def send(self, worker: WorkerChannel, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send to a worker; return False if its channel has ended, which is reported."""
        if worker not in self._workers or worker in self._broken:
            return False
        try:
            worker.channel.send(message, descriptors)
        except ChannelClosedError:
            self._break_off(worker)
            return False
        self._watch(worker)
        return True

    def holders(self) -> list[WorkerChannel]:
        """Return the workers that have a port, the oldest channel first."""
        return [worker for worker in self._workers if worker.served is not None]

    def drop(self, worker: WorkerChannel) -> None:
        """Close a channel and report it."""
        if worker in self._workers:
            del self._workers[worker]
            self._held.discard(worker)
            self._broken.discard(worker)
            self._loop.unwatch(worker.channel.fileno())
            worker.channel.close()
            self._owner.lost(worker)

    def read_out(self, served: Incarnation) -> None:
        """Read the last messages of a port's worker that has ended; then its channel has ended, too."""
        for worker in [each for each in self._workers if each.served == served]:
            self._read_out(worker)

    def flush(self) -> None:
        """Send delayed messages again, now and then: polling does not show every reason of the delay."""
        for worker in [each for each in self._workers if each.channel.backlog]:
            self._flush(worker)

    def tick(self, now: float) -> None:
        """Close broken channels, and read those again that have been held back for long enough."""
        for worker in list(self._broken):
            self._read_out(worker)
            self.drop(worker)
        for worker in [each for each in self._held if each.allowance.resume_at <= now]:
            self._held.discard(worker)
            self._watch(worker)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        if self._broken:
            return 0.0
        return min((worker.allowance.resume_at for worker in self._held), default=float("inf"))

    def close(self) -> None:
        """Close everything; nothing is reported."""
        for worker in self._workers:
            self._loop.unwatch(worker.channel.fileno())
            worker.channel.close()
        self._workers.clear()
        self._held.clear()
        self._broken.clear()

    def _watch(self, worker: WorkerChannel) -> None:
        events = (0 if worker in self._held else READ) | (WRITE if worker.channel.wants_write else 0)
        if events:
            self._loop.watch(worker.channel.fileno(), lambda ready: self._on_channel(worker, ready), events)
        else:
            self._loop.unwatch(worker.channel.fileno())

    def _break_off(self, worker: WorkerChannel) -> None:
        """Note that nothing can be sent any more; a spare has nothing to say."""
        if worker.served is None:
            self.drop(worker)
        else:
            self._broken.add(worker)

    def _read_out(self, worker: WorkerChannel) -> None:
        for _ in range(BURST):  # no socket buffer holds more
            if worker not in self._workers or not self._take_one(worker):
                return

    def _flush(self, worker: WorkerChannel) -> None:
        try:
            worker.channel.flush()
        except ChannelClosedError:
            self._break_off(worker)
        else:
            self._watch(worker)

    def _may_say(self, worker: WorkerChannel) -> int:
        """Return how many messages to take of a worker now; where that is none, it is held back."""
        count = worker.allowance.take(self._clock())
        if not count:
            self._throttle.warning("held", f"worker {worker.pid} says too much and is held back")
            self._held.add(worker)
            self._watch(worker)
        return count

    def _on_channel(self, worker: WorkerChannel, events: int) -> None:
        if events & WRITE:
            self._flush(worker)
        if not events & READ or worker not in self._workers:
            return
        for _ in range(self._may_say(worker)):
            if worker not in self._workers or not self._take_one(worker):
                return

    def _take_one(self, worker: WorkerChannel) -> bool:
        """Take the next message of a worker; return False if there is none now, or the channel has ended."""
        try:
            received = worker.channel.receive()
            if received is None:
                return False
            worker.allowance.spend()
            self._on_message(worker, *received)
        except ChannelClosedError:
            self.drop(worker)
            return False
        except PeerError as error:
            worker.allowance.spend()
            self._throttle.warning("bad", f"bad message on the channel of process {worker.pid}: {error}")
            if not worker.introduced:
                self.drop(worker)
        except Exception:
            self.drop(worker)
            raise
        return True

    def _on_message(self, worker: WorkerChannel, message: Message, descriptors: tuple[int, ...]) -> None:
        served = worker.served
        if isinstance(message, (Ready, Claim)) and not worker.introduced:
            worker.introduced = True
            worker.cell = message.cell
            if isinstance(message, Ready):
                self._owner.ready(worker, message.layout, descriptors)
            else:
                self._owner.claimed(worker, message, descriptors)
        elif isinstance(message, Report) and served is not None:
            self._owner.reported(served, worker, message)
        elif isinstance(message, RingMessage) and served is not None:
            self._owner.asked(served, worker, message)
        elif isinstance(message, KeepSession) and served is not None:
            self._owner.kept(served, message, descriptors)
        else:
            close_all(descriptors)
            raise PeerError(f"a {type(message).__name__} is not for the supervisor now")

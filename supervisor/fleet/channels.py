"""The workers' channels: one for each worker process, and what is said over it.

Theory of operation. The supervisor makes a channel together with a worker's process, or goes to a worker that
it takes over (``dialer``), so it knows which process has the other end, and which port it gave it: no message
says either, and a worker cannot speak for another. A worker's first message is Ready (a spare) or Claim (it
brings its port); after that it reports (Hello, Heartbeat, Goodbye, Note), asks for the table, and for rings
(``rings``). What a report means is decided by ``ChannelHandler``.

Each worker may say so much in a second (``BURST``, ``RATE``). The channel of one that says more is left
unread until it has saved up for it: the kernel holds the worker back, and nothing is lost that anybody else
needs.

A channel that ends, or that is not read, is reported once by ``lost``; it is closed by then.
"""

from collections.abc import Callable
from typing import Protocol

from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.errors import PeerError
from forwarder.loop import READ, WRITE, Loop
from forwarder.messages import (
    Claim,
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
from supervisor.base.logs import Throttle

AT_ONCE = 64
"""Messages taken in one go, so that one worker cannot keep the loop from the others."""

BURST = 4 * MAX_PORTS
"""Messages that a worker may have saved up for: two for a ring to each port, twice."""

RATE = 1000.0
"""Messages a second that it saves up for; one at work says a handful."""


Report = Hello | Heartbeat | Goodbye | Guarded | Note | SnapshotRequest
RingRequest = WantRing | WantFloods | RingSealed | RingIdle


class WorkerChannel:
    """One worker's channel."""

    __slots__ = (
        "cell",
        "channel",
        "identity",
        "introduced",
        "resume_at",
        "saved",
        "saved_at",
        "served",
    )

    def __init__(self, channel: Channel, identity: Identity) -> None:
        self.channel = channel
        self.identity = identity
        self.introduced = False
        """Whether its first message has come."""
        self.cell: Cell | None = None
        """Known after its first message."""
        self.served: Incarnation | None = None
        """The port that it was given, or that it brought."""
        self.saved = float(BURST)
        """Messages that it may send at once, as of ``saved_at``."""
        self.saved_at = 0.0
        self.resume_at = 0.0
        """When it is read again; 0.0: it is read."""

    @property
    def pid(self) -> int:
        """The process at the other end."""
        return self.identity.pid


class ChannelHandler(Protocol):
    """Who decides about workers; called from the loop."""

    def ready(self, worker: WorkerChannel, version: int, proc: tuple[int, ...]) -> None:
        """Take a spare worker that waits for a port; the descriptors are the owner's in any case."""

    def claimed(self, worker: WorkerChannel, claim: Claim, descriptors: tuple[int, ...]) -> None:
        """Take or refuse a worker that brings a port; the descriptors are the owner's in any case."""

    def reported(self, served: Incarnation, worker: WorkerChannel, report: Report) -> None:
        """Take what a worker says of its port."""

    def asked(self, served: Incarnation, worker: WorkerChannel, request: RingRequest) -> None:
        """Take what a worker says of rings. Raises PeerError for what no worker of ours says."""

    def kept(self, served: Incarnation, message: KeepSession, descriptors: tuple[int, ...]) -> None:
        """Keep what a worker wants its successor to have; the descriptors are the owner's in any case.

        Raises PeerError for what is not for its port.
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
        """In the order in which they came."""
        self._held: set[WorkerChannel] = set()
        """Those that are not read for now."""

    def add(self, identity: Identity, channel: Channel) -> None:
        """Take over the channel of that process."""
        worker = WorkerChannel(channel, identity)
        worker.saved_at = self._clock()
        self._workers[worker] = None
        self._watch(worker)

    def send(self, worker: WorkerChannel, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send to a worker; False if its channel has ended, which has been reported then."""
        if worker not in self._workers:
            return False
        try:
            worker.channel.send(message, descriptors)
        except ChannelClosedError:
            self.drop(worker)
            return False
        self._watch(worker)
        return True

    def holders(self) -> list[WorkerChannel]:
        """Return the workers that have a port, the one that has had its channel for longest first."""
        return [worker for worker in self._workers if worker.served is not None]

    def drop(self, worker: WorkerChannel) -> None:
        """Close a channel and report it."""
        if worker in self._workers:
            del self._workers[worker]
            self._held.discard(worker)
            self._loop.unwatch(worker.channel.fileno())
            worker.channel.close()
            self._owner.lost(worker)

    def read_out(self, served: Incarnation) -> None:
        """Take all that a port's worker said before it ended; then its channel has ended, too."""
        for worker in [each for each in self._workers if each.served == served]:
            for _ in range(BURST):  # no socket buffer holds more
                if worker not in self._workers or not self._take_one(worker):
                    break

    def flush(self) -> None:
        """Try again what could not be sent for a reason that polling does not see; now and then."""
        for worker in [each for each in self._workers if each.channel.backlog]:
            self._flush(worker)

    def tick(self, now: float) -> None:
        """Read those again that have been held back for long enough."""
        for worker in [each for each in self._held if each.resume_at <= now]:
            self._held.discard(worker)
            self._watch(worker)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min((worker.resume_at for worker in self._held), default=float("inf"))

    def close(self) -> None:
        """Close everything; nothing is reported."""
        for worker in self._workers:
            self._loop.unwatch(worker.channel.fileno())
            worker.channel.close()
        self._workers.clear()
        self._held.clear()

    def _watch(self, worker: WorkerChannel) -> None:
        events = (0 if worker in self._held else READ) | (WRITE if worker.channel.wants_write else 0)
        if events:
            self._loop.watch(worker.channel.fileno(), lambda ready: self._on_channel(worker, ready), events)
        else:
            self._loop.unwatch(worker.channel.fileno())

    def _flush(self, worker: WorkerChannel) -> None:
        try:
            worker.channel.flush()
        except ChannelClosedError:
            self.drop(worker)
        else:
            self._watch(worker)

    def _may_say(self, worker: WorkerChannel) -> int:
        """Return how many messages to take of a worker now; where that is none, it is held back."""
        now = self._clock()
        worker.saved = min(float(BURST), worker.saved + (now - worker.saved_at) * RATE)
        worker.saved_at = now
        if worker.saved >= 1.0:
            return min(AT_ONCE, int(worker.saved))
        self._throttle.warning("held", f"worker {worker.pid} says too much and is held back")
        worker.resume_at = now + AT_ONCE / RATE
        self._held.add(worker)
        self._watch(worker)
        return 0

    def _on_channel(self, worker: WorkerChannel, events: int) -> None:
        if events & WRITE:
            self._flush(worker)
        if not events & READ or worker not in self._workers:
            return
        for _ in range(self._may_say(worker)):
            if worker not in self._workers or not self._take_one(worker):
                return

    def _take_one(self, worker: WorkerChannel) -> bool:
        """Take the next message of a worker; False if there is none now, or never again."""
        try:
            received = worker.channel.receive()
            if received is None:
                return False
            worker.saved -= 1.0
            self._on_message(worker, *received)
        except ChannelClosedError:
            self.drop(worker)
            return False
        except PeerError as error:
            worker.saved -= 1.0
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
                self._owner.ready(worker, message.version, descriptors)
            else:
                self._owner.claimed(worker, message, descriptors)
        elif (
            isinstance(message, (Hello, Heartbeat, Goodbye, Guarded, Note, SnapshotRequest))
            and served is not None
        ):
            self._owner.reported(served, worker, message)
        elif isinstance(message, (WantRing, WantFloods, RingSealed, RingIdle)) and served is not None:
            self._owner.asked(served, worker, message)
        elif isinstance(message, KeepSession) and served is not None:
            self._owner.kept(served, message, descriptors)
        else:
            close_all(descriptors)
            raise PeerError(f"a {type(message).__name__} is not for the supervisor now")

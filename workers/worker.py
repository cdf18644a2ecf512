"""A worker that serves a port: puts engine, membership, links and channels together, and runs their loop.

Theory of operation. The loop lives in the engine: ``Engine.run`` forwards frames without the interpreter and
returns only for control events and deadlines. Between two runs this file moves messages: published membership
goes to the replica, the replica's actions go to the links, and the links' requests go over the channel. The
heartbeat is sent from here, between two runs, so a stuck loop is silent.

The VM is not read before the port's own record is in the table. The pinned addresses of others come with the
table, and the present settings come with the own record (the assignment may be older). Before that a newcomer
could use any address, and could not reach any port; its frames wait in its socket. The VM is also not read
before the floods of all others are heard (``links``): it would miss a broadcast answer to its first request.

The port's own record comes when it is on its way to all other workers. The VM's floods are in its ring for
those that learn of it a little later: each reads the ring from its start.

The worker answers each beat with a heartbeat. Between beats the engine's pulse shows that the loop turns,
without a return from ``Engine.run``. The supervisor may die at any time: forwarding goes on with the last
view (``supervisor_channel``), and the worker claims its port from the next one, with duplicates of its
descriptors.

A worker may be killed between any two instructions; another one goes on with its descriptors. Its private
state is lost and not counted: frames read from the VM and not yet published in a ring, floods copied out of a
flood ring and not yet written (with lengths of 16 bits unicast, too), and the counts of the unfinished turn.
Everything in a ring is counted by the end that lives.
"""

import os
import signal
import time
from contextlib import suppress
from types import FrameType

from forwarder import _core
from forwarder._core import EVENT_GUARDED, EVENT_LINK_DOWN, EVENT_UNFINISHED, EVENT_WANTED, Engine
from forwarder.channel import close_all
from forwarder.errors import LocalError, PeerError
from forwarder.membership import SnapshotParts
from forwarder.messages import (
    MAX_TEXT,
    Beat,
    Capture,
    CaptureOver,
    Claim,
    Drain,
    FloodMoved,
    FloodTx,
    Goodbye,
    Guarded,
    Heartbeat,
    Hello,
    KeepSession,
    Message,
    SnapshotPart,
    SnapshotRequest,
    Update,
)
from forwarder.names import TRANSPORT_KIND
from forwarder.replica import Action, AskSnapshot, Replica, ReplicaState
from forwarder.vhost_session import VhostSession
from workers.links import Links
from workers.spare import Assignment
from workers.stall import StallWatch
from workers.supervisor_channel import ORPHAN_S, SupervisorChannel
from workers.vhost.session import Session

HELLO_S = 0.05
"""A newcomer asks for the table first and sends HELLO when it has it, or after this time."""


def _random() -> float:
    """Return a number from 0 to 1, for jitter; Python's ``random`` would cost a worker 0.7 MiB."""
    return os.urandom(1)[0] / 255


class Worker:
    """Serves one port until its link ends, the supervisor ends it, or a signal does."""

    def __init__(self, assignment: Assignment, orphan_s: float = ORPHAN_S) -> None:
        """``orphan_s`` is how long to go on without a supervisor."""
        now = time.monotonic()
        self._record = assignment.assign.record
        self._fds = assignment.fds
        self._birthright = assignment.birthright
        self._subscription = assignment.birthright.subscription
        self._snapshot = SnapshotParts()
        self._engine = Engine(
            port=self._record.port,
            epoch=self._record.epoch,
            kind=TRANSPORT_KIND[self._record.transport],
            **assignment.fds._asdict(),
            waiter=assignment.birthright.waiter,
        )
        self._engine.hold(True)
        self._held = True
        self._channel = SupervisorChannel(
            self._engine, assignment.birthright, self._receive, self._claim, orphan_s
        )
        self._links = Links(self._engine, self._record, self._channel.send, assignment.assign.older)
        self._interval = assignment.assign.interval_ms / 1000
        self._replica = Replica(now, _random, self._interval)
        self._assign = assignment.assign
        self._stall = StallWatch(now)
        self._engine.pulse(assignment.assign.pulse_ms / 1000)
        self._heartbeat_due = now + self._interval
        self._hello_due = now + HELLO_S
        self._introduced = False
        self._ending = ""
        for fd in (self._subscription.fileno(), self._birthright.signals):
            self._engine.watch(fd)
        self._kept = assignment.kept
        self._session: Session | None = None
        if self._record.transport == "vhost":
            self._session = Session(self._engine, assignment.fds.vm, self._keep)
            self._engine.watch(self._session.fileno())
        signal.signal(signal.SIGTERM, self._on_signal)

    def serve(self) -> int:
        """Forward until the end. Returns the exit status."""
        assign = self._assign
        if assign.subscribed:
            beat = Beat(assign.supervisor_epoch, 0, assign.interval_ms, assign.pulse_ms)
            self._follow(self._replica.receive(beat, time.monotonic()))
        self._resume_session()
        while not self._ending:
            self._work(time.monotonic())
            if self._ending:
                break
            now = time.monotonic()
            events = self._engine.run(
                0.0 if self._subscription.pending() else max(0.0, self._deadline() - now)
            )
            if events & EVENT_WANTED:
                self._links.want(self._engine.wanted(), time.monotonic())
            if events & EVENT_UNFINISHED:
                self._heartbeat_due = time.monotonic()
            if events & EVENT_GUARDED:
                for refused in self._engine.guarded():
                    self._channel.send(Guarded(*refused))
            if events & EVENT_LINK_DOWN:
                self._ending = self._engine.link_error
        self._end()
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._ending = f"ended by {signal.Signals(number).name}"

    def _resume_session(self) -> None:
        """Go on with the session that the last worker of this port has stored."""
        if self._session is None or self._kept is None:
            return
        message, descriptors = self._kept
        try:
            self._session.resume(message.number, message.session, descriptors)
        except (LocalError, PeerError) as error:
            self._ending = str(error)

    def _serve_session(self) -> None:
        if self._session is None:
            return
        try:
            self._session.receive()
        except (LocalError, PeerError) as error:
            self._ending = str(error)

    def _keep(self, number: int, session: VhostSession, descriptors: tuple[int, ...]) -> None:
        self._channel.send(KeepSession(number, session), descriptors)

    def _work(self, now: float) -> None:
        """Do everything that is not forwarding."""
        self._engine.age(int(now))
        self._serve_session()
        published = self._subscription.receive(self._birthright.supervisor)
        self._channel.read()  # before: a published message may follow changes that came over the channel
        for message in published:
            self._on_published(message, now)
        self._follow(self._replica.tick(now))
        may_read = self._is_member() and self._links.floods.hears_all
        if self._held and self._replica.state is ReplicaState.LIVE and may_read:
            self._held = False
            self._links.let_in()
            self._engine.hold(False)
        self._links.tick(now)
        if not self._introduced and (now >= self._hello_due or self._replica.state is ReplicaState.LIVE):
            self._introduced = True
            self._channel.send(Hello())
        written, queued = self._engine.progress()
        if self._stall.observe(written, queued, now) or now >= self._heartbeat_due:
            self._send_heartbeat(queued, now)
        self._ending = self._ending or self._channel.seek(now)

    def _is_member(self) -> bool:
        """Whether the port is in the table under this worker's epoch, so with the present settings.

        Until the supervisor has heard this worker's Hello, it may be there as reserved, without settings.
        """
        own = self._replica.table.get(self._record.port)
        return own is not None and own.epoch == self._record.epoch and not own.reserved

    def _deadline(self) -> float:
        queued = self._engine.progress()[1]
        return min(
            self._heartbeat_due,
            self._replica.deadline(),
            self._links.deadline(),
            self._stall.deadline(queued),
            self._channel.deadline(),
            float("inf") if self._introduced else self._hello_due,
        )

    def _on_published(self, message: Message, now: float) -> None:
        """Read published messages."""
        if isinstance(message, Beat):
            self._on_beat(message, now)
        elif isinstance(message, Update):
            self._follow(self._replica.receive(message, now))

    def _on_beat(self, beat: Beat, now: float) -> None:
        self._follow(self._replica.receive(beat, now))
        self._engine.pulse(beat.pulse_ms / 1000)
        self._links.floods.ask_for_moved()
        self._interval = beat.interval_ms / 1000
        self._heartbeat_due = min(self._heartbeat_due, now)

    def _follow(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, AskSnapshot):
                self._channel.send(SnapshotRequest())
            else:
                self._links.apply(action)
                record = action.record
                if record.incarnation == self._record.incarnation and not record.reserved:
                    self._record = record
                    self._heartbeat_due = 0.0  # the supervisor waits for the confirmation of settings

    def _send_heartbeat(self, queued: int, now: float) -> None:
        # The next heartbeat goes out with the next beat; by itself only if no beat comes.
        self._heartbeat_due = now + 1.5 * self._interval
        replica = self._replica
        self._channel.send(
            Heartbeat(
                replica.epoch,
                replica.sequence,
                queued,
                self._stall.stalled,
                self._engine.unfinished,
                *_core.cell_refused(),
            )
        )

    def _receive(self, message: Message, descriptors: tuple[int, ...]) -> None:
        """Take a message of the channel: a newcomer before it is published, or an answer."""
        now = time.monotonic()
        if isinstance(message, Drain):
            self._ending = "told to end"
        elif isinstance(message, Beat):
            self._on_beat(message, now)
        elif isinstance(message, SnapshotPart):
            snapshot = self._snapshot.add(message)
            if snapshot is not None:
                self._follow(self._replica.receive(snapshot, now))
        elif isinstance(message, Update):
            self._follow(self._replica.overhear(message, now))
        elif isinstance(message, Capture):
            self._capture(message, descriptors)
            return
        elif isinstance(message, CaptureOver):
            self._engine.end_capture(message.number)
        elif isinstance(message, FloodTx):
            self._move_floods(*descriptors)
            return
        self._links.receive(message, descriptors, now)

    def _move_floods(self, ring: int) -> None:
        """Move to another flood ring. Without an answer the supervisor replaces this worker."""
        try:
            self._engine.move_floods(ring)
        except OSError:
            os.close(ring)
            return
        before, self._fds = self._fds.flood, self._fds._replace(flood=ring)
        os.close(before)
        self._channel.send(FloodMoved())

    def _capture(self, message: Capture, descriptors: tuple[int, ...]) -> None:
        """Begin to capture the port's frames; with an invalid ring or program the viewer gets nothing."""
        with suppress(OSError):
            self._engine.capture(message.number, descriptors[0], message.program, message.snap)
        close_all(descriptors)

    def _claim(self) -> None:
        """Claim the port from another supervisor. Raises LocalError without descriptors to send others."""
        self._snapshot = SnapshotParts()
        claim = Claim(_core.LAYOUT, self._birthright.cell, self._record)
        self._channel.send(claim, (*self._fds, *self._birthright.proc))
        if self._introduced:
            self._channel.send(Hello())  # the first may be lost with the last channel
        if self._session is not None:
            self._session.keep_again()

    def _end(self) -> None:
        """Send the reason to the supervisor, and close everything."""
        self._engine.run(0.0)
        self._engine.close()
        self._channel.send(Goodbye(self._ending[:MAX_TEXT]))
        self._birthright.close()

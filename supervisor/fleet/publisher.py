"""The supervisor's ZeroMQ edge towards workers: membership out (XPUB), reports in (ROUTER).

While ``quiet`` nothing of membership goes out, though the log grows: whoever takes over from a dead
supervisor has no complete table yet (``takeover``).

It numbers nothing and decides nothing: the log is ``forwarder.membership.MembershipLog``, and reports go to
the ``ReportHandler``. A bad message is counted and logged at most once a second, and the loop goes on. A
message that a socket does not take is dropped; the sequence in every beat tells each worker that it has
missed one.

A worker's routing id is learned from its reports, so the table has as many rows as ports have ever been
alive at once. A ZeroMQ descriptor tells of changes only, and sending can swallow one, so ``receive`` is
called after every turn of the loop, whatever the loop saw.
"""

from contextlib import suppress
from typing import Protocol, cast

import zmq

from forwarder.errors import PeerError
from forwarder.loop import Loop
from forwarder.membership import MembershipLog
from forwarder.names import PortRecord
from forwarder.rendezvous import CONTROL, MEMBERSHIP, endpoint, subscription
from forwarder.wire import (
    Assign,
    Drain,
    Goodbye,
    Heartbeat,
    Hello,
    HelloAgain,
    Message,
    SnapshotRequest,
    Update,
    decode,
    encode,
)
from supervisor.base.logs import Throttle
from supervisor.base.zmq_sockets import Context, listen

AT_ONCE = 256
"""Messages taken in one go, so that reports cannot keep VMs from being accepted."""
QUEUE = 8192
"""Messages kept for a worker that does not read: every port may join and leave four times. More are lost,
which its next beat tells it."""


class ReportHandler(Protocol):
    """Decides what a worker's report means; called from the loop."""

    def hello(self, message: Hello) -> None:
        """Take a worker's word that it forwards."""

    def heartbeat(self, message: Heartbeat) -> None:
        """Take a sign of life."""

    def goodbye(self, message: Goodbye) -> None:
        """Take a worker's word that its VM's link is over."""


class Publisher:
    """Both sockets."""

    def __init__(
        self,
        loop: Loop,
        context: Context,
        runtime_dir: str,
        log: MembershipLog,
        owner: ReportHandler,
    ) -> None:
        """Bind. Raises LocalError if that cannot be done."""
        self.log = log
        self.quiet = False
        self.published = log.sequence
        """The last change that went out."""
        self.last_beat = log.beat()
        """The last beat: its intervals are those in force."""
        self.bad_messages = 0
        self._owner = owner
        self._throttle = Throttle()
        self._routes: dict[int, tuple[int, bytes]] = {}
        self._table_requests: dict[int, int] = {}
        self._next_beat = 0.0
        self._subscribed: set[bytes] = set()
        self._membership = listen(context, zmq.XPUB, endpoint(runtime_dir, MEMBERSHIP))
        self._membership.setsockopt(zmq.SNDHWM, QUEUE)
        self._reports = listen(context, zmq.ROUTER, endpoint(runtime_dir, CONTROL))
        self._reports.setsockopt(zmq.SNDHWM, QUEUE)
        self._loop = loop
        self._fd = cast(int, self._reports.getsockopt(zmq.FD))
        loop.watch(self._fd, lambda _: None)  # it only has to wake the loop

    def speak(self, now: float) -> None:
        """End the quiet: the table is complete."""
        self.quiet = False
        self.beat(now)

    def publish(self, update: Update) -> None:
        """Tell everybody of the next change of the log."""
        self.published = update.sequence
        self._send_all(update)

    def has_asked_for_table(self, port: int, epoch: int) -> bool:
        """Whether that worker has asked for the table."""
        return self._table_requests.get(port) == epoch

    def beat(self, now: float) -> None:
        """Beat now, and again in an interval. One that would be ahead waits: all would ask for the table."""
        if self.published < self.log.sequence:
            return
        self.last_beat = self.log.beat()
        self._send_all(self.last_beat)
        self._next_beat = now + self.last_beat.interval_ms / 1000

    def deadline(self) -> float:
        """When the next beat is due."""
        return self._next_beat

    def assignment(self, record: PortRecord, pid: int) -> Assign:
        """Return what to tell a worker with its port."""
        beat = self.last_beat
        return Assign(record, beat.epoch, beat.interval_ms, beat.pulse_ms, self._is_subscribed(pid))

    def _is_subscribed(self, pid: int) -> bool:
        """Whether that worker gets everything that is published from now on.

        The socket reports a topic once it is in force. A worker subscribes to everything first and then to
        its own number, and both take the same way.
        """
        with suppress(zmq.Again):
            while True:
                report = self._membership.recv(zmq.NOBLOCK)
                if report[:1] == b"\1":
                    self._subscribed.add(report[1:])
                else:
                    self._subscribed.discard(report[1:])
        return subscription(pid) in self._subscribed

    def drain(self, port: int, epoch: int) -> bool:
        """Tell a port's worker to end; False if nobody knows how to reach it."""
        known = self._routes.get(port)
        return known is not None and known[0] == epoch and self._answer(known[1], Drain(port, epoch))

    def say_hello_again(self, port: int, epoch: int) -> None:
        """Ask the worker of that port to say Hello again."""
        known = self._routes.get(port)
        if known is not None and known[0] == epoch:
            self._answer(known[1], HelloAgain(self.log.epoch))

    def forget(self, port: int) -> None:
        """Forget how a port's worker is reached."""
        self._routes.pop(port, None)
        self._table_requests.pop(port, None)

    def receive(self, now: float) -> bool:
        """Take what has arrived; whether there may be more."""
        for _ in range(AT_ONCE):
            try:
                route, *parts = self._reports.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            try:
                if len(parts) != 1:
                    raise PeerError(f"{len(parts)} parts, not one")
                self._on_report(route, decode(parts[0]), now)
            except PeerError as error:
                self.bad_messages += 1
                self._throttle.warning("bad", f"bad message on {CONTROL}, ignored: {error}")
        return True

    def close(self) -> None:
        """Close both sockets."""
        self._loop.unwatch(self._fd)
        self._membership.close()
        self._reports.close()

    def _on_report(self, route: bytes, message: Message, now: float) -> None:
        if not isinstance(message, (Hello, Heartbeat, Goodbye, SnapshotRequest)):
            raise PeerError(f"a {type(message).__name__} is not for the supervisor")
        if isinstance(message, SnapshotRequest):
            if not self.quiet:
                self._table_requests[message.port] = message.epoch
                self._answer(route, self.log.snapshot())
            return
        known = self._routes.get(message.port)
        if known is None or known[0] <= message.epoch:
            self._routes[message.port] = (message.epoch, route)
        if isinstance(message, Hello):
            before = self.log.sequence
            self._owner.hello(message)
            if self.log.sequence == before:
                self.beat(now)  # the worker waits for a first message before it asks for the table
        elif isinstance(message, Heartbeat):
            self._owner.heartbeat(message)
        else:
            self._owner.goodbye(message)

    def _answer(self, route: bytes, message: Message) -> bool:
        try:
            self._reports.send_multipart([route, encode(message)], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _send_all(self, message: Message) -> None:
        if self.quiet:
            return
        try:
            self._membership.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self._throttle.warning("full", "an update was lost on its way; workers will ask for the table")

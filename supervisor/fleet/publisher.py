"""The supervisor's ZeroMQ edge towards workers: membership out (XPUB), evidence in (ROUTER).

While ``quiet`` nothing of membership goes out, though the log grows: whoever takes over from a dead
supervisor has no complete table yet (``takeover``).

It numbers nothing and decides nothing: the log is ``forwarder.membership.Publisher``, evidence goes to the
``Owner``. A message that is no good is counted and logged at most once a second, and the loop goes on. A
message that a socket does not take is dropped; the sequence in every beat makes the loss of any of them
known to whom it concerns.

A worker's routing id is learned from its evidence, so the table has as many rows as ports have ever been
alive at once. A ZeroMQ descriptor tells of changes only, and sending can swallow one, so ``receive`` is
called after every turn of the loop, whatever the loop saw.
"""

from contextlib import suppress
from typing import Protocol, cast

import zmq

from forwarder.errors import PeerError
from forwarder.loop import Loop
from forwarder.membership import Publisher
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
from supervisor.base.zmq_sockets import listen

AT_ONCE = 256
"""Messages taken in one go, so that evidence cannot keep VMs from being accepted."""
QUEUE = 8192
"""Messages kept for a worker that does not read: every port may join and leave four times. More are lost,
which its next beat tells it."""


class Owner(Protocol):
    """Who decides what evidence means; called from the loop."""

    def hello(self, message: Hello) -> None:
        """Take a worker's word that it forwards."""

    def heartbeat(self, message: Heartbeat) -> None:
        """Take a sign of life."""

    def goodbye(self, message: Goodbye) -> None:
        """Take a worker's word that its VM's link is over."""


class Control:
    """Both sockets."""

    def __init__(
        self,
        loop: Loop,
        context: "zmq.Context[zmq.Socket[bytes]]",
        runtime_dir: str,
        publisher: Publisher,
        owner: Owner,
    ) -> None:
        """Bind. Raises LocalError if that cannot be done."""
        self.publisher = publisher
        self.quiet = False
        self.published = publisher.sequence
        """The last change that went out."""
        self.told = publisher.beat()
        """The last beat: its intervals are those in force."""
        self.bad_messages = 0
        self._owner = owner
        self._throttle = Throttle()
        self._routes: dict[int, tuple[int, bytes]] = {}
        self._asked: dict[int, int] = {}
        self._next_beat = 0.0
        self._subscribed: set[bytes] = set()
        self._membership = listen(context, zmq.XPUB, endpoint(runtime_dir, MEMBERSHIP))
        self._membership.setsockopt(zmq.SNDHWM, QUEUE)
        self._evidence = listen(context, zmq.ROUTER, endpoint(runtime_dir, CONTROL))
        self._evidence.setsockopt(zmq.SNDHWM, QUEUE)
        self._loop = loop
        self._fd = cast(int, self._evidence.getsockopt(zmq.FD))
        loop.watch(self._fd, lambda _: None)  # it only has to wake the loop

    def speak(self, now: float) -> None:
        """End the quiet: the table is complete."""
        self.quiet = False
        self.beat(now)

    def publish(self, update: Update) -> None:
        """Tell everybody of the next change of the log."""
        self.published = update.sequence
        self._send_all(update)

    def has_asked(self, port: int, epoch: int) -> bool:
        """Whether that worker has asked for the table."""
        return self._asked.get(port) == epoch

    def beat(self, now: float) -> None:
        """Beat now, and again in an interval. One that would be ahead waits: all would ask for the table."""
        if self.published < self.publisher.sequence:
            return
        self.told = self.publisher.beat()
        self._send_all(self.told)
        self._next_beat = now + self.told.interval_ms / 1000

    def deadline(self) -> float:
        """When the next beat is due."""
        return self._next_beat

    def assignment(self, record: PortRecord, pid: int) -> Assign:
        """Return what to tell a worker with its port."""
        told = self.told
        return Assign(record, told.epoch, told.interval_ms, told.pulse_ms, self._is_subscribed(pid))

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
        """Ask the sender of evidence to introduce itself."""
        known = self._routes.get(port)
        if known is not None and known[0] == epoch:
            self._answer(known[1], HelloAgain(self.publisher.epoch))

    def forget(self, port: int) -> None:
        """Forget how a port's worker is reached."""
        self._routes.pop(port, None)
        self._asked.pop(port, None)

    def receive(self, now: float) -> bool:
        """Take what has arrived; whether there may be more."""
        for _ in range(AT_ONCE):
            try:
                route, *parts = self._evidence.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            try:
                if len(parts) != 1:
                    raise PeerError(f"{len(parts)} parts, not one")
                self._take(route, decode(parts[0]), now)
            except PeerError as error:
                self.bad_messages += 1
                self._throttle.warning("bad", f"bad message on {CONTROL}, ignored: {error}")
        return True

    def close(self) -> None:
        """Close both sockets."""
        self._loop.unwatch(self._fd)
        self._membership.close()
        self._evidence.close()

    def _take(self, route: bytes, message: Message, now: float) -> None:
        if not isinstance(message, (Hello, Heartbeat, Goodbye, SnapshotRequest)):
            raise PeerError(f"a {type(message).__name__} is not for the supervisor")
        if isinstance(message, SnapshotRequest):
            if not self.quiet:
                self._asked[message.port] = message.epoch
                self._answer(route, self.publisher.snapshot())
            return
        known = self._routes.get(message.port)
        if known is None or known[0] <= message.epoch:
            self._routes[message.port] = (message.epoch, route)
        if isinstance(message, Hello):
            before = self.publisher.sequence
            self._owner.hello(message)
            if self.publisher.sequence == before:
                self.beat(now)  # the worker waits for a first message before it asks for the table
        elif isinstance(message, Heartbeat):
            self._owner.heartbeat(message)
        else:
            self._owner.goodbye(message)

    def _answer(self, route: bytes, message: Message) -> bool:
        try:
            self._evidence.send_multipart([route, encode(message)], zmq.NOBLOCK)
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

"""Publish membership to all workers at once over ZeroMQ (XPUB).

It connects to each worker's subscription when the worker is ready, and disconnects when the worker is gone,
so a worker never has to connect to a supervisor. While it is ``quiet``, no membership goes out, though the
log grows: during a takeover the table is not complete yet (``takeover``).

``forwarder.membership.MembershipLog`` numbers the changes; this file only sends them. A message that a socket
does not accept is dropped; the sequence in every beat tells each worker that it has missed one.

Subscriptions come back, with the process from the kernel (``Peer-Address``). A worker has one subscription,
to everything. When it has come, the worker gets everything that is published from then on. ZeroMQ stores
topics in memory here, so a worker that subscribes to a topic, or changes its subscription again and again, is
disconnected and logged.

A ZeroMQ descriptor reports changes only, and sending can swallow one. So ``receive`` is called after every
turn of the loop.
"""

from collections.abc import Callable
from typing import cast

import zmq

from forwarder.loop import Loop
from forwarder.membership import MembershipLog
from forwarder.messages import Assign, Message, Update
from forwarder.names import PortRecord
from forwarder.rendezvous import MEMBERSHIP, endpoint, worker_path
from forwarder.wire import encode
from supervisor.base.logs import Throttle
from supervisor.base.zmq_sockets import Context

AT_ONCE = 256
"""Subscriptions read in one turn, so that they cannot keep VMs from being accepted."""
QUEUE = 512
"""Messages kept for a worker that does not read. Further ones are lost, and the next beat shows the worker
the gap. All such workers share one copy, so they cost 30 MB together (with as many of the longest records as
fit)."""
SUBSCRIPTION_BYTES = 64
"""The longest message from a worker: a subscription to everything, or one of ZeroMQ itself."""
EVERYTHING, NOTHING = b"\1", b"\0"
CHANGES = 8
"""Subscriptions that one worker may send; each connection brings one."""


class Publisher:
    """The socket, and the workers that are known to receive."""

    def __init__(
        self,
        loop: Loop,
        context: Context,
        runtime_dir: str,
        log: MembershipLog,
        subscribed: Callable[[int], None],
    ) -> None:
        """Register a function to call with each process that gets everything published from then on."""
        self.log = log
        self.quiet = False
        self.last_beat = log.beat()
        """The last beat, with the intervals in force."""
        self._runtime_dir = runtime_dir
        self._on_subscribed = subscribed
        self._throttle = Throttle()
        self._next_beat = 0.0
        self._connected: dict[int, int] = {}
        """Connected processes, and how often each has changed its subscription."""
        self._subscribed: set[int] = set()
        self._socket = context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, QUEUE)
        self._socket.setsockopt(zmq.RCVHWM, CHANGES)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES)
        self._loop = loop
        self._fd = cast(int, self._socket.getsockopt(zmq.FD))
        loop.watch(self._fd, lambda _: None)  # it only has to wake the loop

    def connect(self, pid: int) -> None:
        """Publish to this worker, too."""
        if pid not in self._connected:
            self._connected[pid] = 0
            self._socket.connect(self._endpoint(pid))

    def disconnect(self, pid: int) -> None:
        """Disconnect from a worker that is gone, or is to receive nothing any more."""
        if pid in self._connected:
            del self._connected[pid]
            self._subscribed.discard(pid)
            self._socket.disconnect(self._endpoint(pid))

    def is_subscribed(self, pid: int) -> bool:
        """Whether this worker gets everything that is published from now on."""
        return pid in self._subscribed

    def speak(self, now: float) -> None:
        """End the quiet time: the table is complete."""
        self.quiet = False
        self.beat(now)

    def publish(self, update: Update) -> None:
        """Publish the next changes of the log."""
        self._send_all(update)

    def beat(self, now: float) -> None:
        """Beat now, and again in an interval."""
        self.last_beat = self.log.beat()
        self._send_all(self.last_beat)
        self._next_beat = now + self.last_beat.interval_ms / 1000

    def beat_soon(self) -> None:
        """Have the next beat when all changes until now have gone out."""
        self._next_beat = 0.0

    def deadline(self) -> float:
        """When the next beat is due."""
        return self._next_beat

    def assignment(self, record: PortRecord, pid: int, older: int) -> Assign:
        """Return what a worker gets with its port; ``older`` is the last epoch of older ports."""
        beat = self.last_beat
        return Assign(record, older, beat.epoch, beat.interval_ms, beat.pulse_ms, self.is_subscribed(pid))

    def receive(self) -> bool:
        """Take the subscriptions that have come; return whether there may be more."""
        for _ in range(AT_ONCE):
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            self._take(frame)
        return True

    def close(self) -> None:
        """Close the socket."""
        self._loop.unwatch(self._fd)
        self._socket.close()

    def _take(self, frame: zmq.Frame) -> None:
        try:
            pid = int(str(frame.get("Peer-Address")).rpartition(":")[2])
        except (zmq.ZMQError, ValueError):
            return  # the end of a subscription whose connection is gone
        if pid not in self._connected:
            return
        self._connected[pid] += 1
        if self._connected[pid] > CHANGES or frame.bytes not in (EVERYTHING, NOTHING):
            self._throttle.warning(
                "topics", f"worker {pid} sent a subscription that workers never send: it is disconnected"
            )
            self.disconnect(pid)
        elif frame.bytes == EVERYTHING and pid not in self._subscribed:
            self._subscribed.add(pid)
            self._on_subscribed(pid)

    def _endpoint(self, pid: int) -> str:
        return endpoint(worker_path(self._runtime_dir, pid, MEMBERSHIP))

    def _send_all(self, message: Message) -> None:
        if self.quiet:
            return
        try:
            self._socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self._throttle.warning("full", "an update was lost on its way; workers will ask for the table")

"""The supervisor's ZeroMQ edge towards workers: membership out, to all of them at once (XPUB).

It connects to each worker's subscription when the worker is ready and lets go of it when the worker is gone,
so that a worker never has to come to a supervisor. While ``quiet`` nothing of membership goes out, though the
log grows: whoever takes over from a dead supervisor has no complete table yet (``takeover``).

It numbers nothing and decides nothing: the log is ``forwarder.membership.MembershipLog``. A message that a
socket does not take is dropped; the sequence in every beat tells each worker that it has missed one.

What comes back are subscriptions, and the kernel says of which process (``Peer-Address``). A worker has one,
to everything: that it has come tells that the worker gets whatever is published from now on. Topics are kept
in memory here, so a worker that names one, or changes its mind again and again, is disconnected and named.

A ZeroMQ descriptor tells of changes only, and sending can swallow one, so ``receive`` is called after every
turn of the loop, whatever the loop saw.
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
"""Subscriptions taken in one go, so that they cannot keep VMs from being accepted."""
QUEUE = 2048
"""Messages kept for a worker that does not read: every port may join and leave. More are lost, which its next
beat tells it. They are one copy for all such workers, so these cost 3 MB together (a longest record each)."""
SUBSCRIPTION_BYTES = 64
"""Longest message from a worker: a subscription to everything, or ZeroMQ's own."""
EVERYTHING, NOTHING = b"\1", b"\0"
CHANGES = 8
"""Subscriptions that are taken from one worker; each connection brings one."""


class Publisher:
    """The socket, and who is known to hear it."""

    def __init__(
        self,
        loop: Loop,
        context: Context,
        runtime_dir: str,
        log: MembershipLog,
        subscribed: Callable[[int], None],
    ) -> None:
        """Take who is called with a process that gets all that is published from now on."""
        self.log = log
        self.quiet = False
        self.published = log.sequence
        """The last change that went out."""
        self.last_beat = log.beat()
        """The last beat: its intervals are those in force."""
        self._runtime_dir = runtime_dir
        self._on_subscribed = subscribed
        self._throttle = Throttle()
        self._table_requests: dict[int, int] = {}
        self._next_beat = 0.0
        self._connected: dict[int, int] = {}
        """Processes whose subscription was connected to, and how often they have changed it."""
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
        """Publish to that worker, too."""
        if pid not in self._connected:
            self._connected[pid] = 0
            self._socket.connect(self._endpoint(pid))

    def disconnect(self, pid: int) -> None:
        """Let go of a worker that is gone, or that is not to hear anything any more."""
        if pid in self._connected:
            del self._connected[pid]
            self._subscribed.discard(pid)
            self._socket.disconnect(self._endpoint(pid))

    def is_subscribed(self, pid: int) -> bool:
        """Whether that worker gets all that is published from now on."""
        return pid in self._subscribed

    def speak(self, now: float) -> None:
        """End the quiet: the table is complete."""
        self.quiet = False
        self.beat(now)

    def publish(self, update: Update) -> None:
        """Tell everybody of the next change of the log."""
        self.published = update.sequence
        self._send_all(update)

    def asked_for_table(self, port: int, epoch: int) -> bool:
        """Note that the worker of a port has asked for the table; whether it can have it now."""
        if self.quiet:
            return False
        self._table_requests[port] = epoch
        return True

    def has_asked_for_table(self, port: int, epoch: int) -> bool:
        """Whether that worker has asked for the table."""
        return self._table_requests.get(port) == epoch

    def forget(self, port: int) -> None:
        """Forget what was asked for a port."""
        self._table_requests.pop(port, None)

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
        return Assign(record, beat.epoch, beat.interval_ms, beat.pulse_ms, self.is_subscribed(pid))

    def receive(self) -> bool:
        """Take the subscriptions that have come; whether there may be more."""
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
                "topics", f"worker {pid} subscribes to what no worker does: it is disconnected"
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

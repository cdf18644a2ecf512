"""Run the template of workers for the supervisor: start it, ask it for workers, replace it when it ends.

Theory of operation. ``python -m workers`` (``template_process``) is a process that forks workers
(``workers.template``). Each request makes a channel and sends the worker's end with it. The answers come in
order, so an answer is for the oldest request. The worker is our child, not the template's.

A template may end at any moment; its workers go on. Its answers are read first. If it has ever answered, its
open requests are sent to the next template; else they fail with the reason, and the pool decides when to try
again. A template that does not answer for ``ANSWER_S`` is killed and counts as one that has never answered:
it may be stopped.

If a template ends between a fork and its answer, we have an unknown child. ``Processes.end_unknown`` finds,
ends and reaps it; its channel is closed afterwards, since a child that has ended by itself cannot be found.

Example: the pool asks twice. The template says Forked(102), and is killed. The pool has worker 102; a new
template gets the second request.

Runs in the supervisor's loop; only ``close`` waits, for a moment.
"""

import socket
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple, Protocol

from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError, shortage
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Fork, Forked
from supervisor.base.logs import log
from supervisor.pool.template_process import TemplateProcess

ANSWER_S = 10.0
"""An interpreter on a loaded machine takes a second to start; a fork takes a millisecond."""


class ForkOwner(Protocol):
    """The receiver of workers; called from the loop."""

    def forked(self, pid: int, channel: Channel) -> None:
        """Take a worker, a child of this process, and its channel."""

    def not_forked(self, how: str) -> None:
        """Note that a request has failed."""

    def template_ended(self) -> None:
        """Note that there may be an unknown worker."""


class Request(NamedTuple):
    """A request for a worker."""

    channel: Channel
    deadline: float


class Template:
    """The template of one switch, in one process after the other."""

    def __init__(
        self, loop: Loop, runtime_dir: str, owner: ForkOwner, first: TemplateProcess | None = None
    ) -> None:
        """``first``: the first process, if it has been started already."""
        self._loop = loop
        self._runtime_dir = runtime_dir
        self._owner = owner
        self._first = first
        self._process: TemplateProcess | None = None
        self._channel: LoopChannel | None = None
        self._requests: deque[Request] = deque()
        self._has_answered = False
        self._closed = False

    def fork(self) -> None:
        """Ask for a worker. Raises LocalError: out of processes, memory or descriptors."""
        if self._process is None:
            self._start()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise LocalError(f"cannot make a worker's channel: {shortage(error)}") from None
        self._requests.append(Request(Channel(ours), time.monotonic() + ANSWER_S))
        if self._channel is not None:  # or this process ends, and the next one is asked
            with suppress(ChannelClosedError):  # the pidfd reports its end
                self._channel.send(Fork(), (theirs.fileno(),))
        theirs.close()

    def renew(self) -> None:
        """Replace the template, so that further workers have another layout of memory."""
        if self._process is not None and self._has_answered:
            self._process.kill()

    def tick(self, now: float) -> None:
        """End a template that does not answer."""
        if now >= self.deadline() and self._process is not None:
            log.warning("the template of the workers has not answered for %g s and is ended", ANSWER_S)
            self._has_answered = False
            self._requests = deque(each._replace(deadline=float("inf")) for each in self._requests)
            self._process.kill()

    def deadline(self) -> float:
        """Return the time of the next ``tick``."""
        return self._requests[0].deadline if self._requests else float("inf")

    def close(self) -> None:
        """End the template, and wait for its end; requests are dropped."""
        self._closed = True
        if self._first is not None:
            self._first.close()
            self._first = None
        if self._process is not None:
            self._process.kill()
            self._on_end()

    def _start(self) -> None:
        """Start a template. Raises LocalError: out of processes, memory or descriptors."""
        process, self._first = self._first or TemplateProcess(self._runtime_dir), None
        channel = LoopChannel(process.channel)
        self._process, self._channel, self._has_answered = process, channel, False
        self._loop.watch(process.pidfd, lambda _: self._on_end())
        channel.watch(self._loop, self._receive)

    def _receive(self) -> None:
        """Read the template's messages. It ends with its channel, and its pidfd reports that."""
        try:
            while self._channel is not None and (received := self._channel.receive()) is not None:
                message, descriptors = received
                close_all(descriptors)
                if not isinstance(message, Forked) or not self._requests:
                    raise PeerError(f"an unexpected {type(message).__name__}")
                self._take(message)
        except ChannelClosedError:
            self._hang_up()
        except PeerError as error:
            log.error("the template of the workers sent a bad message and is ended: %s", error)
            self._hang_up()

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()

    def _on_end(self) -> None:
        assert self._process is not None
        self._receive()
        self._hang_up()
        self._loop.unwatch(self._process.pidfd)
        how = self._process.reap()
        self._process = None
        unanswered, self._requests = self._requests, deque()
        if unanswered:
            self._owner.template_ended()
        for request in unanswered:
            request.channel.close()
        if not self._closed:
            self._replace(len(unanswered), how)

    def _replace(self, wanted: int, how: str) -> None:
        """Send open requests to another template, unless this one has never answered."""
        how = f"the template of the workers {how}"
        log.warning("%s%s", how, "; another one takes its place" if self._has_answered else "")
        try:
            if not self._has_answered:
                raise LocalError(how)
            self._start()
            while wanted:
                self.fork()
                wanted -= 1
        except LocalError as error:
            for _ in range(wanted):
                self._owner.not_forked(str(error))

    def _take(self, answer: Forked) -> None:
        channel = self._requests.popleft().channel
        self._has_answered = True
        if answer.pid:
            self._owner.forked(answer.pid, channel)
        else:
            channel.close()
            self._owner.not_forked(answer.why)

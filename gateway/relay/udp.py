"""Datagrams that arrive at one socket and are for one place: forwards, and questions for the resolver.

Each client gets a socket of its own towards the other side, connected, so that answers find their way back
and nobody else's are heard; its flow ends by silence (``gateway.flows``). A guest's socket is made in the
namespace, which takes a moment: meanwhile up to ``MOST_WAITING`` datagrams of the client wait.

A question to the resolver has a flow for itself, since dnsmasq asks from a new port each time; it ends with
its answer. The first of the host's resolvers is asked until one question has no answer, then the next.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from gateway.relay.flow_context import BURST, Common
from gateway.relay.poller import READ, Poller

LONGEST = 65535
MOST_WAITING = 16


class Route(NamedTuple):
    """Where datagrams go."""

    targets: list[tuple[str, int]]
    """One is used at a time."""
    make: Callable[[Callable[[socket.socket | None], None]], None]
    """Makes a socket on the side of the targets, now or later."""


class ClientFlow:
    """One client, and the socket that stands for it on the other side."""

    __slots__ = ("_poller", "_unanswered", "answered", "client", "closed", "far", "key", "waiting")

    def __init__(
        self, poller: Poller, key: tuple[object, ...], client: Any, unanswered: Callable[[], None]
    ) -> None:
        """Call ``unanswered`` if the flow ends without an answer."""
        self._poller = poller
        self._unanswered = unanswered
        self.key = key
        self.client = client
        self.far: socket.socket | None = None
        self.waiting: list[bytes] = []
        self.answered = False
        self.closed = False

    def close(self) -> None:
        """End the flow; a socket that comes later is closed by whoever brings it."""
        self.closed = True
        if self.far is not None:
            self._poller.unwatch(self.far.fileno())
            self.far.close()
        if not self.answered:
            self._unanswered()


class Datagrams:
    """One socket and the flows of its clients."""

    def __init__(
        self,
        common: Common,
        near: socket.socket,
        owner: str,
        route: Route,
        *,
        once: bool = False,
    ) -> None:
        """Serve ``near``, which stays the caller's.

        ``once``: a flow ends with its first answer, and one without any turns to the next target.
        """
        self._poller, self._flows, self._counters, self._clock = common
        self._common = common
        self._near = near
        self._owner = owner
        self._targets, self._make = route
        self._once = once
        self._turn = 0
        near.setblocking(False)
        self._poller.watch(near.fileno(), self._near_event, READ)

    def close(self) -> None:
        """Stop, and end the flows."""
        self._poller.unwatch(self._near.fileno())
        for flow in self._flows.remove_owner(self._owner):
            flow.close()

    def _next_target(self) -> None:
        if self._once:
            self._turn += 1

    def _near_event(self, _: int) -> None:
        now = self._clock()
        for _ in range(BURST):
            try:
                data, client = self._near.recvfrom(LONGEST)
            except OSError:
                return
            key = (self._owner, client)
            flow: ClientFlow = self._flows.sent(key, now) or self._new_flow(key, client, now)
            if flow.far is not None:
                self._send(flow, data)
            elif len(flow.waiting) < MOST_WAITING:
                flow.waiting.append(data)
            else:
                self._counters["datagrams_dropped"] += 1

    def _new_flow(self, key: tuple[object, ...], client: Any, now: float) -> ClientFlow:
        flow = ClientFlow(self._poller, key, client, self._next_target)
        self._common.enter(key, self._owner, flow, now)
        self._make(partial(self._made, flow))
        return flow

    def _made(self, flow: ClientFlow, far: socket.socket | None) -> None:
        if flow.closed:
            if far is not None:
                far.close()
            return
        if far is None:
            self._counters["no_descriptor"] += 1
            self._end(flow)
            return
        far.setblocking(False)
        try:
            far.connect(self._targets[self._turn % len(self._targets)])
        except OSError:
            far.close()
            self._counters["unreachable"] += 1
            self._end(flow)
            return
        flow.far = far
        self._poller.watch(far.fileno(), partial(self._answers, flow), READ)
        waiting, flow.waiting = flow.waiting, []
        for data in waiting:
            self._send(flow, data)

    def _send(self, flow: ClientFlow, data: bytes) -> None:
        assert flow.far is not None
        try:
            flow.far.send(data)
        except OSError:
            self._counters["datagrams_dropped"] += 1

    def _answers(self, flow: ClientFlow, _: int) -> None:
        assert flow.far is not None
        for _ in range(BURST):
            try:
                data = flow.far.recv(LONGEST)
            except BlockingIOError:
                break
            except OSError:  # nobody is there
                self._counters["refused"] += 1
                self._end(flow)
                return
            flow.answered = True
            try:
                self._near.sendto(data, flow.client)
            except OSError:
                self._counters["datagrams_dropped"] += 1
            if self._once:
                self._end(flow)
                return
        if flow.answered:
            self._flows.answered(flow.key, self._clock())

    def _end(self, flow: ClientFlow) -> None:
        self._flows.remove(flow.key).close()

"""Carry the datagrams of a UDP forward to a port of a guest, and the answers back.

Each client gets its own connected socket towards the guest, so that answers come back to it and no others are
heard. Its flow ends by silence (``flows``). It is answered from the address that it asked
(``answering_socket``); with another address it counts as another client. A guest's socket is made in the
namespace, which takes a moment: meanwhile up to ``MOST_WAITING`` datagrams of the client wait.

From the second datagram on, in each direction, the core carries the datagrams of a client and its guest
(``forwarder._core.Datagrams``).
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from forwarder.tcp_options import take_segments
from gateway.poller import READ
from gateway.relay.answering_socket import AnsweringSocket, Local
from gateway.relay.flow_context import BATCH, BURST, Common, FlowKey
from gateway.relay.nat import pieces

MOST_WAITING = 16


class Route(NamedTuple):
    """Where datagrams go."""

    target: tuple[str, int]
    make: Callable[[Callable[[socket.socket | None], None]], None]
    """Makes a socket on the side of the target, now or later."""


class Client(NamedTuple):
    """The sender of a datagram to a forward."""

    address: bytes
    port: int
    scope: int
    """The interface of a link-local IPv6 address."""

    def as_peer(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return it in the form that sockets use."""
        if len(self.address) == 4:
            return socket.inet_ntop(socket.AF_INET, self.address), self.port
        return socket.inet_ntop(socket.AF_INET6, self.address), self.port, 0, self.scope


class ClientFlow:
    """One client, and its socket on the other side."""

    __slots__ = ("_core", "_poller", "client", "closed", "far", "key", "local", "waiting")

    def __init__(self, common: Common, key: FlowKey, client: Client, local: Local) -> None:
        self._poller, self._core = common.poller, common.core
        self.key = key
        self.client = client
        self.local = local
        self.far: socket.socket | None = None
        self.waiting: list[bytes] = []
        self.closed = False

    def close(self) -> None:
        """End the flow; a socket that is delivered later is closed by its maker."""
        self.closed = True
        if self.far is not None:
            self._poller.unwatch(self.far.fileno())
            self._core.forget(self.far.fileno())
            self.far.close()

    def used(self) -> float:
        """Return when the core last sent one of the client's datagrams."""
        return self._core.used(self.far.fileno()) if self.far is not None else 0.0


class Datagrams:
    """One socket and the flows of its clients."""

    def __init__(self, common: Common, near: socket.socket, owner: str, route: Route) -> None:
        """Serve ``near``; the caller closes it."""
        self._common = common
        self._poller, self._flows, self._counts, self._clock, self._core = common
        self._near = near
        self._answering = AnsweringSocket(near)
        self._owner = owner
        self._target, self._make = route
        near.setblocking(False)
        take_segments(near)
        self._core.open(near.fileno())
        self._poller.watch(near.fileno(), self._near_event, READ)

    def close(self) -> None:
        """Stop, and end the flows."""
        self._poller.unwatch(self._near.fileno())
        self._core.forget(self._near.fileno())
        self._flows.end_of(self._owner)

    def _near_event(self, _: int) -> None:
        now = self._clock()
        for _ in range(BURST):
            try:
                count, _, left = self._core.read(self._near.fileno(), True)
            except OSError:
                return
            for data, address, port, scope, local, cut in left:
                try:
                    for piece in pieces(data, cut):
                        self._take(piece, Client(address, port, scope), local, now)
                except Exception:  # a mistake of ours costs this client's datagrams, and no other's
                    self._poller.failed()
            if count < BATCH:
                return

    def _take(self, data: bytes, client: Client, local: Local, now: float) -> None:
        """Carry a datagram for which the core has no way."""
        key = (self._owner, client, local)
        flow: ClientFlow | None = self._flows.sent(key, now) or self._new_flow(key, client, local, now)
        if flow is None:
            self._counts["datagrams_dropped"] += 1
        elif flow.far is not None:
            self._send(flow, data)
            if not client.scope:
                far = flow.far.fileno()
                self._core.to_socket(
                    self._near.fileno(), client.address, client.port, local, far, b"", 0, b""
                )
        elif len(flow.waiting) < MOST_WAITING:
            flow.waiting.append(data)
        else:
            self._counts["datagrams_dropped"] += 1

    def _new_flow(self, key: FlowKey, client: Client, local: Local, now: float) -> ClientFlow | None:
        flow = ClientFlow(self._common, key, client, local)
        if not self._flows.enter(key, self._owner, flow, now):
            return None
        self._make(partial(self._made, flow))
        return flow

    def _made(self, flow: ClientFlow, far: socket.socket | None) -> None:
        if flow.closed:
            if far is not None:
                far.close()
            return
        if far is None:
            self._counts["no_descriptor"] += 1
            self._end(flow)
            return
        far.setblocking(False)
        try:
            far.connect(self._target)
        except OSError:
            far.close()
            self._counts["unreachable"] += 1
            self._end(flow)
            return
        flow.far = far
        take_segments(far)
        self._core.open(far.fileno())
        self._poller.watch(far.fileno(), partial(self._answers, flow), READ)
        waiting, flow.waiting = flow.waiting, []
        for data in waiting:
            self._send(flow, data)

    def _send(self, flow: ClientFlow, data: bytes) -> None:
        assert flow.far is not None
        try:
            flow.far.send(data)
        except OSError:
            self._counts["datagrams_dropped"] += 1

    def _answers(self, flow: ClientFlow, _: int) -> None:
        assert flow.far is not None
        answered = False
        for _ in range(BURST):
            try:
                count, _, left = self._core.read(flow.far.fileno(), False)
            except BlockingIOError:
                break
            except OSError:  # no answer: the port is closed
                self._counts["refused"] += 1
                self._end(flow)
                return
            answered = True
            for data, guest, _port, _scope, _local, cut in left:
                self._answer(flow, guest, pieces(data, cut))
            if count < BATCH:
                break
        if answered:
            self._flows.answered(flow.key, self._clock())

    def _answer(self, flow: ClientFlow, guest: bytes, datagrams: list[bytes]) -> None:
        """Pass on answers for which the core has no way."""
        assert flow.far is not None
        for data in datagrams:
            try:
                self._answering.send(data, flow.client.as_peer(), flow.local)
            except OSError:
                self._counts["datagrams_dropped"] += 1
        if not flow.client.scope:
            client = flow.client
            near = self._near.fileno()
            self._core.to_socket(
                flow.far.fileno(), guest, 0, b"", near, client.address, client.port, flow.local
            )

    def _end(self, flow: ClientFlow) -> None:
        self._flows.end(flow.key)

"""The table of datagram flows, shared by all parts of the relay that carry datagrams, and its bound.

The core carries most datagrams of a flow along the way of its first ones (``forwarder._core.Datagrams``),
without the table. So before the table ends a flow, it asks the flow for the time of its last use, and keeps
it if that is later than the table knew.

A flow takes a descriptor from the budget that connections use, too. An owner beyond its share loses its
longest unused flow. If nothing is left at all, the owner with most flows loses one. So a guest that scans the
Internet pushes out only its own flows, whatever addresses it uses.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol, TypeAlias

from forwarder._core import Datagrams
from gateway.fair_share import Shares
from gateway.poller import Poller
from gateway.relay.counts import Counts
from gateway.relay.descriptors import OF_A_FLOW
from gateway.relay.flows import Flows

BURST = 2
"""Most batches read from one descriptor in one turn."""

BATCH = 32
"""Datagrams of a full batch; after a smaller one, no more wait."""

SECOND_LOOKS = 16
"""Most flows to ask for their last use; then one has to go, used or not."""

MOST_FLOWS = 16_384
"""Flows at most, since each flow is a socket in the kernel."""

FlowKey: TypeAlias = tuple[object, ...]
"""Key of a flow; it begins with the part that made the flow."""


class Flow(Protocol):
    """A flow in the table."""

    def close(self) -> None:
        """End the flow."""

    def used(self) -> float:
        """Return when the core last sent one of its datagrams, in monotonic seconds."""


class FlowTable:
    """The table of all flows, with one bound. Ending a flow closes it."""

    def __init__(self, descriptors: Shares, counts: Counts) -> None:
        self._descriptors = descriptors
        self._places = Shares(MOST_FLOWS)
        self._counts = counts
        self._flows: Flows[FlowKey, Any] = Flows()
        self.sent = self._flows.sent
        self.answered = self._flows.answered
        self.deadline = self._flows.deadline

    def __len__(self) -> int:
        return len(self._flows)

    def figures(self) -> dict[str, int]:
        """Return the number of flows, and of pings among them."""
        return {"flows": len(self._flows), "pings": sum(key[0] == "ping" for key in self._flows)}

    def enter(self, key: FlowKey, owner: Hashable, flow: Flow, now: float) -> bool:
        """Add a flow, and end another if needed; return False, and close ``flow``, if there is no room."""
        while not self._take(owner):
            gone = self._next_to_go(owner, now)
            if gone is None:
                self._counts.refuse("no_descriptor", owner, "none is left")
                flow.close()
                return False
            self.end(gone)
            self._counts["flows_pushed_out"] += 1
        self._flows.add(key, owner, flow, now)
        return True

    def end(self, key: FlowKey) -> None:
        """End a flow; does nothing if it has ended."""
        flow = self._take_out(key)
        if flow is not None:
            flow.close()

    def end_of(self, owner: Hashable) -> None:
        """End all flows of ``owner``."""
        for key in self._flows.of(owner):
            self.end(key)

    def of(self, owner: Hashable) -> list[tuple[FlowKey, Any]]:
        """Return the flows of ``owner`` with their keys."""
        return [(key, self._flows.value(key)) for key in self._flows.of(owner)]

    def move(self, key: FlowKey, owner: Hashable, now: float) -> bool:
        """Count a flow as one of ``owner`` from now on; return False if it has ended."""
        flow = self._take_out(key)
        return flow is not None and self.enter(key, owner, flow, now)

    def expire(self, now: float) -> None:
        """End the flows that have been silent for too long."""
        for key in self._flows.due(now):
            if not self._is_in_use(key, now):
                self.end(key)

    def _take_out(self, key: FlowKey) -> Any | None:
        """Take a flow out of the table and give its places back; None if it has ended."""
        try:
            owner, flow = self._flows.remove(key)
        except KeyError:
            return None
        self._descriptors.give_back(owner, OF_A_FLOW)
        self._places.give_back(owner)
        return flow

    def _next_to_go(self, owner: Hashable, now: float) -> FlowKey | None:
        for _ in range(SECOND_LOOKS):
            gone = self._flows.next_to_go(owner)
            if gone is None or not self._is_in_use(gone, now):
                return gone
        return self._flows.next_to_go(owner)

    def _is_in_use(self, key: FlowKey, now: float) -> bool:
        """Whether a flow was used later than the table knew; the table knows it then."""
        return self._flows.catch_up(key, self._flows.value(key).used(), now)

    def _take(self, owner: Hashable) -> bool:
        if not self._descriptors.take(owner, OF_A_FLOW):
            return False
        if not self._places.take(owner):
            self._descriptors.give_back(owner, OF_A_FLOW)
            return False
        return True


class Common(NamedTuple):
    """The context that the relay passes to its parts."""

    poller: Poller
    flows: FlowTable
    counts: Counts
    clock: Callable[[], float]
    core: Datagrams

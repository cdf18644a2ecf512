"""What every part of the relay that carries datagrams shares: the table of flows, and how many there may be.

Most datagrams of a flow are carried by the core along the way that was decided for the first ones
(``forwarder._core.Datagrams``), and the table does not hear of them. So a flow whose time seems to be over,
or that seems to be the one to go, is asked when it was used, and stays if that was later than the table
thinks.

A flow is a descriptor of the budget that connections draw on, too. An owner that is over its share of it
loses the flow that it has not used for longest, and where nothing is left at all the owner with most flows
loses one. So a guest that scans the Internet pushes out flows of its own, under however many addresses it
does so.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol, TypeAlias

from forwarder._core import Datagrams
from gateway.fair_share import Shares
from gateway.relay.counts import Counts
from gateway.relay.descriptors import OF_A_FLOW
from gateway.relay.flows import Flows
from gateway.relay.poller import Poller

BURST = 2
"""Batches taken from one descriptor before others get their turn."""

BATCH = 32
"""Datagrams of a batch: fewer say that there are no more."""

SECOND_LOOKS = 16
"""Flows that are asked when they were used before one has to go whatever it says."""

MOST_FLOWS = 16_384
"""However many descriptors there are: each flow is a socket in the kernel."""

FlowKey: TypeAlias = tuple[object, ...]
"""Begins with what made the flow."""


class Flow(Protocol):
    """What the table of flows keeps."""

    def close(self) -> None:
        """End the flow."""

    def used(self) -> float:
        """Return when the core last sent something of it, in monotonic seconds."""


class FlowTable:
    """One table for all flows, so that there is one bound. A flow that is ended is closed."""

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
        """Return how many there are, and how many of them are pings."""
        return {"flows": len(self._flows), "pings": sum(key[0] == "ping" for key in self._flows)}

    def enter(self, key: FlowKey, owner: Hashable, flow: Flow, now: float) -> bool:
        """Add a flow, and end one that has to go for it; False: there is no room, and ``flow`` is closed."""
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
        """End a flow. One that is gone is ignored."""
        try:
            owner, flow = self._flows.remove(key)
        except KeyError:
            return
        self._descriptors.give_back(owner, OF_A_FLOW)
        self._places.give_back(owner)
        flow.close()

    def end_of(self, owner: Hashable) -> None:
        """End all flows of ``owner``."""
        for key in self._flows.of(owner):
            self.end(key)

    def expire(self, now: float) -> None:
        """End the flows that have been silent for too long."""
        for key in self._flows.due(now):
            if not self._is_in_use(key, now):
                self.end(key)

    def _next_to_go(self, owner: Hashable, now: float) -> FlowKey | None:
        for _ in range(SECOND_LOOKS):
            gone = self._flows.next_to_go(owner)
            if gone is None or not self._is_in_use(gone, now):
                return gone
        return self._flows.next_to_go(owner)

    def _is_in_use(self, key: FlowKey, now: float) -> bool:
        """Whether a flow was used since the table heard of it, which has heard of it then."""
        return self._flows.catch_up(key, self._flows.value(key).used(), now)

    def _take(self, owner: Hashable) -> bool:
        if not self._descriptors.take(owner, OF_A_FLOW):
            return False
        if not self._places.take(owner):
            self._descriptors.give_back(owner, OF_A_FLOW)
            return False
        return True


class Common(NamedTuple):
    """Handed down by the relay."""

    poller: Poller
    flows: FlowTable
    counts: Counts
    clock: Callable[[], float]
    core: Datagrams

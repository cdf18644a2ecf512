"""What every part of the relay that carries datagrams shares."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

from gateway.relay.flows import Flows
from gateway.relay.poller import Poller

BURST = 64
"""Datagrams taken from one descriptor before others get their turn."""


class Flow(Protocol):
    """What the table of flows keeps."""

    def close(self) -> None:
        """End the flow."""


FlowTable: TypeAlias = Flows[tuple[object, ...], Any]
"""One table for all, so that there is one bound: keys begin with what made them, values are Flow."""


class Common(NamedTuple):
    """Handed down by the relay."""

    poller: Poller
    flows: FlowTable
    counters: "Counter[str]"
    clock: Callable[[], float]

    def enter(self, key: tuple[object, ...], owner: object, flow: Flow, now: float) -> None:
        """Add a flow to the table, and end those that had to go for it."""
        for gone in self.flows.add(key, owner, flow, now):
            gone.close()
            self.counters["flows_pushed_out"] += 1

"""Decide when a gateway whose process was lost is started again, and what the log says of it.

The restart budget of ports holds for the gateway, too. But no other VM depends on a port that is parked, and
all VMs depend on the gateway: when its losses are forgotten, it is started again.

    lost five times within a minute    started again after 0.05, 0.1, 0.2, 0.4 and 0.8 s
    lost once more                     parked; started again after a minute
"""

from typing import NamedTuple

from forwarder.restart_budget import Budget, Losses
from supervisor.gateway.states import GatewayEvent, GatewayState


class Next(NamedTuple):
    """What happens after a loss."""

    due: float
    """When to start the next process, in monotonic seconds."""
    event: GatewayEvent
    text: str
    level: str
    state: GatewayState


class Ends:
    """The losses of one gateway."""

    def __init__(self, budget: Budget) -> None:
        self._losses = Losses(budget)
        self._forgotten_s = budget.window_s

    def lost(self, how: str, why: str, now: float) -> Next:
        """Count a loss. ``how`` the process ended, ``why`` it did not serve, if it said so."""
        due = self._losses.lost(now)
        if due is None:
            text = f"the gateway {how} too often and is started again in {self._forgotten_s:g} s"
            later = now + self._forgotten_s
            return Next(later, GatewayEvent.LOST_TOO_OFTEN, text, "error", GatewayState.PARKED)
        text = f"the gateway {how} and is started again" + (f": {why}" if why else "")
        return Next(due, GatewayEvent.LOST, text, "warning", GatewayState.WAITING)

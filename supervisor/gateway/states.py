"""The states of the gateway, as the table that ``process`` and ``inquiries`` run on."""

from enum import Enum


class GatewayState(Enum):
    """The states."""

    OFF = "off"
    STARTING = "starting"
    """Its process runs and has not answered yet."""
    UP = "live"
    SILENT = "silent"
    """It served and does not answer now."""
    WAITING = "waiting"
    """Its process was lost; the next one starts when the back-off is over and the old port has left."""
    PARKED = "parked"
    """Its process was lost too often; the next one starts when these losses are forgotten."""


class GatewayEvent(Enum):
    """The events."""

    START = "start"
    READY = "ready"
    UNANSWERED = "unanswered"
    """It has not answered a question in time."""
    ANSWERED = "answered"
    LOST = "lost"
    """Its process was lost, and the budget allows another one."""
    LOST_TOO_OFTEN = "lost too often"
    STOP = "stop"


TRANSITIONS = {
    (GatewayState.OFF, GatewayEvent.START): GatewayState.STARTING,
    (GatewayState.WAITING, GatewayEvent.START): GatewayState.STARTING,
    (GatewayState.PARKED, GatewayEvent.START): GatewayState.STARTING,
    (GatewayState.STARTING, GatewayEvent.READY): GatewayState.UP,
    (GatewayState.STARTING, GatewayEvent.LOST): GatewayState.WAITING,
    (GatewayState.UP, GatewayEvent.LOST): GatewayState.WAITING,
    (GatewayState.UP, GatewayEvent.UNANSWERED): GatewayState.SILENT,
    (GatewayState.UP, GatewayEvent.ANSWERED): GatewayState.UP,
    (GatewayState.SILENT, GatewayEvent.UNANSWERED): GatewayState.SILENT,
    (GatewayState.SILENT, GatewayEvent.ANSWERED): GatewayState.UP,
    (GatewayState.SILENT, GatewayEvent.LOST): GatewayState.WAITING,
    (GatewayState.SILENT, GatewayEvent.LOST_TOO_OFTEN): GatewayState.PARKED,
    (GatewayState.STARTING, GatewayEvent.LOST_TOO_OFTEN): GatewayState.PARKED,
    (GatewayState.UP, GatewayEvent.LOST_TOO_OFTEN): GatewayState.PARKED,
    **{(state, GatewayEvent.STOP): GatewayState.OFF for state in GatewayState},
}
"""Every other pair is a bug: only a running process can be lost, only an absent one starts, and only a
gateway that serves is asked."""

SERVING = frozenset({GatewayState.UP, GatewayState.SILENT})


class GatewayStates:
    """The state of one switch's gateway."""

    def __init__(self) -> None:
        self.now = GatewayState.OFF

    def to(self, event: GatewayEvent) -> None:
        """Go to the next state."""
        self.now = TRANSITIONS[self.now, event]

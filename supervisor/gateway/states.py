"""The life of the gateway as the table that ``gateway`` runs on."""

from enum import Enum


class GatewayState(Enum):
    """Where the gateway is in its life."""

    OFF = "off"
    STARTING = "starting"
    """Its process is there and has not answered yet."""
    UP = "live"
    SILENT = "silent"
    """It serves, as far as anybody knows, and does not answer."""
    WAITING = "waiting"
    """It was lost; the next one starts when the back-off is over and the old port has gone."""
    PARKED = "parked"
    """It was lost too often."""


class GatewayEvent(Enum):
    """What happens to it."""

    START = "start"
    READY = "ready"
    UNANSWERED = "unanswered"
    """It has not answered a question in time."""
    ANSWERED = "answered"
    LOST = "lost"
    """And the budget allows another one."""
    LOST_FOR_GOOD = "lost for good"
    STOP = "stop"


TRANSITIONS = {
    (GatewayState.OFF, GatewayEvent.START): GatewayState.STARTING,
    (GatewayState.WAITING, GatewayEvent.START): GatewayState.STARTING,
    (GatewayState.STARTING, GatewayEvent.READY): GatewayState.UP,
    (GatewayState.STARTING, GatewayEvent.LOST): GatewayState.WAITING,
    (GatewayState.UP, GatewayEvent.LOST): GatewayState.WAITING,
    (GatewayState.UP, GatewayEvent.UNANSWERED): GatewayState.SILENT,
    (GatewayState.UP, GatewayEvent.ANSWERED): GatewayState.UP,
    (GatewayState.SILENT, GatewayEvent.UNANSWERED): GatewayState.SILENT,
    (GatewayState.SILENT, GatewayEvent.ANSWERED): GatewayState.UP,
    (GatewayState.SILENT, GatewayEvent.LOST): GatewayState.WAITING,
    (GatewayState.SILENT, GatewayEvent.LOST_FOR_GOOD): GatewayState.PARKED,
    (GatewayState.STARTING, GatewayEvent.LOST_FOR_GOOD): GatewayState.PARKED,
    (GatewayState.UP, GatewayEvent.LOST_FOR_GOOD): GatewayState.PARKED,
    **{(state, GatewayEvent.STOP): GatewayState.OFF for state in GatewayState},
}
"""Every other pair is a mistake of ours: what is lost was there, what starts was not, and only a gateway that
serves is asked."""

SERVING = frozenset({GatewayState.UP, GatewayState.SILENT})

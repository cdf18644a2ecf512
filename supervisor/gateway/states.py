"""The life of the gateway as the table that ``gateway`` runs on."""

from enum import Enum


class State(Enum):
    """Where the gateway is in its life."""

    OFF = "off"
    STARTING = "starting"
    """Its process is there and has not answered yet."""
    UP = "up"
    WAITING = "waiting"
    """It was lost; the next one starts when the back-off is over and the old port has gone."""
    PARKED = "parked"
    """It was lost too often."""


class Event(Enum):
    """What happens to it."""

    START = "start"
    READY = "ready"
    LOST = "lost"
    """And the budget allows another one."""
    LOST_FOR_GOOD = "lost for good"
    STOP = "stop"


TRANSITIONS = {
    (State.OFF, Event.START): State.STARTING,
    (State.WAITING, Event.START): State.STARTING,
    (State.STARTING, Event.READY): State.UP,
    (State.STARTING, Event.LOST): State.WAITING,
    (State.UP, Event.LOST): State.WAITING,
    (State.STARTING, Event.LOST_FOR_GOOD): State.PARKED,
    (State.UP, Event.LOST_FOR_GOOD): State.PARKED,
    **{(state, Event.STOP): State.OFF for state in State},
}
"""Every other pair is a mistake of ours: who is lost was there, and who starts was not."""

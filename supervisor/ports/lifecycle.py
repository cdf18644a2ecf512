"""The states of a port, as the table that the registry runs on.

```
            ASSIGNED          HELLO
  PENDING ───────────► STARTING ───► LIVE ◄── a worker claims its port after the supervisor was replaced
     ▲                    │           │
     │ RETRY_DUE          │ LOST      │ LOST
     └───── WAITING ◄─────┴───────────┘         LOST_PARK ► PARKED      END, LOST_CLOSE ► ENDING or GONE
```

A port has a worker in STARTING, LIVE and ENDING, and none in the other states. GONE is final: the registry
forgets the port, and a VM that comes back gets a new one.
"""

from enum import Enum, auto


class PortState(Enum):
    """The states; the value is the word that operators read."""

    PENDING = "pending"
    """The supervisor has its descriptor, and it waits for a worker."""
    STARTING = "starting"
    """A worker has its descriptors and has not sent HELLO yet."""
    LIVE = "live"
    """Its worker forwards."""
    WAITING = "waiting"
    """Its worker was lost, and the next one starts when the back-off is over."""
    PARKED = "parked"
    """It has lost too many workers; it stays so until it is detached or its VM hangs up."""
    ENDING = "ending"
    """Its worker was told to end and has not ended yet."""
    GONE = "gone"
    """It is forgotten."""


class PortEvent(Enum):
    """The events. The loss of a worker is one of three events; the registry decides which."""

    ASSIGNED = auto()
    HELLO = auto()
    LOST_RETRY = auto()
    """The worker is lost, the link can go on, and the budget allows another worker."""
    LOST_PARK = auto()
    """The same, and the budget is used up."""
    LOST_CLOSE = auto()
    """The worker is lost, and the link cannot go on or is to be closed anyway."""
    RETRY_DUE = auto()
    END = auto()
    """The VM is gone, the operator detaches the port, or the switch stops."""


TRANSITIONS: dict[tuple[PortState, PortEvent], PortState] = {
    (PortState.PENDING, PortEvent.ASSIGNED): PortState.STARTING,
    (PortState.PENDING, PortEvent.LOST_RETRY): PortState.WAITING,  # no worker could be started for it
    (PortState.PENDING, PortEvent.LOST_PARK): PortState.PARKED,
    (PortState.PENDING, PortEvent.END): PortState.GONE,
    (PortState.STARTING, PortEvent.HELLO): PortState.LIVE,
    (PortState.STARTING, PortEvent.LOST_RETRY): PortState.WAITING,
    (PortState.STARTING, PortEvent.LOST_PARK): PortState.PARKED,
    (PortState.STARTING, PortEvent.LOST_CLOSE): PortState.GONE,
    (PortState.STARTING, PortEvent.END): PortState.ENDING,
    (PortState.LIVE, PortEvent.HELLO): PortState.LIVE,  # the answer to "hello again"
    (PortState.LIVE, PortEvent.LOST_RETRY): PortState.WAITING,
    (PortState.LIVE, PortEvent.LOST_PARK): PortState.PARKED,
    (PortState.LIVE, PortEvent.LOST_CLOSE): PortState.GONE,
    (PortState.LIVE, PortEvent.END): PortState.ENDING,
    (PortState.WAITING, PortEvent.RETRY_DUE): PortState.PENDING,
    (PortState.WAITING, PortEvent.END): PortState.GONE,
    (PortState.PARKED, PortEvent.END): PortState.GONE,
    (PortState.ENDING, PortEvent.HELLO): PortState.ENDING,  # it crossed the order to end, which stands
    (PortState.ENDING, PortEvent.LOST_CLOSE): PortState.GONE,
    (PortState.ENDING, PortEvent.END): PortState.ENDING,  # the VM hangs up while its port is detached
}

_ONE_WORKER = "a port has one worker at most, or two processes would write to one VM"
_NO_WORKER = "the port has no worker that could do this"
_NOT_UNTIL_LOST = "only a port that waits after a loss has a retry to come"
_NEVER_AGAIN = "this port is to end, whatever its budget says"
_UNTOUCHED = "no worker has touched the link yet, so its position is known and it need not be closed"
_FORGOTTEN = "a gone port is forgotten; another VM may have its number by now"

PROHIBITED: dict[tuple[PortState, PortEvent], str] = {
    (PortState.PENDING, PortEvent.HELLO): _NO_WORKER,
    (PortState.PENDING, PortEvent.LOST_CLOSE): _UNTOUCHED,
    (PortState.PENDING, PortEvent.RETRY_DUE): _NOT_UNTIL_LOST,
    (PortState.STARTING, PortEvent.ASSIGNED): _ONE_WORKER,
    (PortState.STARTING, PortEvent.RETRY_DUE): _NOT_UNTIL_LOST,
    (PortState.LIVE, PortEvent.ASSIGNED): _ONE_WORKER,
    (PortState.LIVE, PortEvent.RETRY_DUE): _NOT_UNTIL_LOST,
    (PortState.WAITING, PortEvent.ASSIGNED): "a worker now would defeat the back-off",
    (PortState.WAITING, PortEvent.HELLO): _NO_WORKER,
    (PortState.WAITING, PortEvent.LOST_RETRY): _NO_WORKER,
    (PortState.WAITING, PortEvent.LOST_PARK): _NO_WORKER,
    (PortState.WAITING, PortEvent.LOST_CLOSE): _NO_WORKER,
    (PortState.PARKED, PortEvent.ASSIGNED): "the budget is used up; another worker would die like the others",
    (PortState.PARKED, PortEvent.HELLO): _NO_WORKER,
    (PortState.PARKED, PortEvent.LOST_RETRY): _NO_WORKER,
    (PortState.PARKED, PortEvent.LOST_PARK): _NO_WORKER,
    (PortState.PARKED, PortEvent.LOST_CLOSE): _NO_WORKER,
    (PortState.PARKED, PortEvent.RETRY_DUE): _NOT_UNTIL_LOST,
    (PortState.ENDING, PortEvent.ASSIGNED): _ONE_WORKER,
    (PortState.ENDING, PortEvent.LOST_RETRY): _NEVER_AGAIN,
    (PortState.ENDING, PortEvent.LOST_PARK): _NEVER_AGAIN,
    (PortState.ENDING, PortEvent.RETRY_DUE): _NOT_UNTIL_LOST,
    **{(PortState.GONE, event): _FORGOTTEN for event in PortEvent},
}
"""Every other pair, with the reason. A test checks that each pair is in exactly one of the two tables."""

HAS_WORKER = frozenset({PortState.STARTING, PortState.LIVE, PortState.ENDING})

KEPT_APART = frozenset({"seqpacket", "dgram", "tap", "vhost"})
"""Kinds of links on which the kernel, or a guest's queue, keeps the bounds of frames."""


def resumable(kind: str, *, position_known: bool) -> bool:
    """Whether a link goes on when its worker is lost.

    If the kernel keeps the bounds of frames, the next worker starts at a whole frame. In a byte stream it
    would start at the lost worker's position, often in the middle of a frame, and the VM would read garbage
    as lengths for ever. So a stream goes on only if it is known to stand between two frames, both ways
    (``StatsPage.at_boundary``).
    """
    return kind in KEPT_APART or position_known

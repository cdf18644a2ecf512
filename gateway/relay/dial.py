"""One dial: a connection of the relay before it is joined, with its states and its errors.

A dial is *asked* while the namespace makes its socket, then *connecting*, then *answered*, then *joined*,
when ``splice`` takes over. In each of the first three states an error, a time-out or its near end makes it
*over* (``NEXT``). ``tcp`` has the table of all dials and gives up those that take too long.
"""

import enum
import errno
import socket
from collections.abc import Callable, Hashable

from gateway.relay.policy import Address

Deliver = Callable[[socket.socket | None], None]
Make = Callable[[Deliver], None]
"""Makes a socket to connect with and delivers it, now or later; None if it cannot be made."""

_DOWN = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES})


class State(enum.Enum):
    """States of a dial."""

    ASKED = "asked"
    CONNECTING = "connecting"
    ANSWERED = "answered"
    JOINED = "joined"
    OVER = "over"


NEXT = {
    (State.ASKED, "socket"): State.CONNECTING,
    (State.ASKED, "failed"): State.OVER,
    (State.CONNECTING, "connected"): State.ANSWERED,
    (State.CONNECTING, "failed"): State.OVER,
    (State.ANSWERED, "taken"): State.JOINED,
    (State.ANSWERED, "failed"): State.OVER,
    # Ignored, not prohibited, since it is only late: a socket or a failure for a dial that is over.
    (State.OVER, "socket"): State.OVER,
    (State.OVER, "failed"): State.OVER,
    # Prohibited: to be connected without a socket, to be taken before the answer, to fail once joined.
}


class Dial:
    """One connection before it is joined."""

    __slots__ = ("decided", "end", "far", "near", "owner", "state", "target")

    def __init__(
        self,
        owner: Hashable,
        target: tuple[Address, int],
        near: socket.socket | None,
        decided: Callable[["Dial", int], None],
    ) -> None:
        """``decided`` is called with 0 when the far side has answered, or with an errno before that."""
        self.near = near
        self.owner = owner
        self.target = target
        self.decided = decided
        self.end = 0.0
        self.far: socket.socket | None = None
        self.state = State.ASKED


def make_on_host(family: int, kind: int, deliver: Deliver) -> None:
    """Make a socket here and deliver it."""
    try:
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    except OSError:
        deliver(None)
        return
    deliver(sock)


def counter_of(error: int) -> str:
    """Return the counter of a failed dial."""
    if error == errno.ECONNREFUSED:
        return "refused"
    if error == errno.ETIMEDOUT:
        return "timed_out"
    if error in _DOWN:
        return "unreachable"
    return "near_gone" if error == errno.ECONNABORTED else "failed"

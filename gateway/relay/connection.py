"""One connection of the relay, from the dial to its end, with its states and its errors.

A connection is *asked* while the namespace makes its socket, then *connecting*, then *answered*, then
*joined*, when the core moves its bytes. In each of the first three states an error, a time-out or its near
end makes it *over*; a joined one is over at its end (``NEXT``). ``tcp`` has the table of all connections and
gives up dials that take too long.
"""

import enum
import errno
import socket
from collections.abc import Callable, Hashable

from gateway.relay.policy import Address

Deliver = Callable[[socket.socket | None], None]
Make = Callable[[Deliver], None]
"""Makes a non-blocking socket to connect with and delivers it, now or later; None if it cannot be made."""

_DOWN = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EACCES})


class State(enum.Enum):
    """States of a connection."""

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
    (State.JOINED, "ended"): State.OVER,
    # Prohibited: to be connected without a socket, to be taken before the answer, to fail once joined.
    # A socket or a failure that comes when the connection is over is only late: ``tcp`` ignores it.
}


class Connection:
    """One connection."""

    __slots__ = ("decided", "end", "guest", "guest_is_near", "number", "owner", "state", "target")

    def __init__(
        self,
        owner: Hashable,
        target: tuple[Address, int],
        guest: Address | bytes,
        decided: Callable[["Connection", int], None] | None,
    ) -> None:
        """``decided``: of a guest's, called with 0 when the far side has answered, or with an errno before.

        A client's of the host has none, and is joined when the guest has answered.
        """
        self.owner = owner
        self.target = target
        self.guest = guest
        """The guest's address."""
        self.guest_is_near = decided is not None
        self.decided = decided
        self.end = 0.0
        """When the dial is given up, in monotonic seconds."""
        self.number = -1
        """The core's."""
        self.state = State.ASKED


def counter_of(error: int) -> str:
    """Return the counter of a failed dial."""
    if error == errno.ECONNREFUSED:
        return "refused"
    if error == errno.ETIMEDOUT:
        return "timed_out"
    if error in _DOWN:
        return "unreachable"
    return "near_gone" if error == errno.ECONNABORTED else "failed"

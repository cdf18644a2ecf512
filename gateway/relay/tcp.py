"""TCP connections on their way through the gateway: admitted, dialled, joined.

The near end is accepted before the far end is known to answer: the kernel has already told the guest (or the
host's client) that it is connected. So whatever goes wrong with the far end, refused, unreachable or silent,
becomes a reset of the near one; that is what a client of a relay can be told. A near end that is reset while
its far end is dialled ends the dialling.

A dial (``NEXT``) is *asked* while the namespace makes the socket for it, then *connecting*; *joined*, it is
the affair of ``gateway.splice``. It is *over* from each of the two by an error, the time-out or its near end.

Bounds: ``most`` connections, from the descriptors that the process may have, and ``MOST_DIALS`` dials, both
shared out by ``gateway.shares``. Whoever is over it is reset at once: ten thousand connections to a host that
is switched off cost the next guest nothing. A dial that takes longer than ``DIAL_S`` is given up.
"""

import contextlib
import enum
import errno
import resource
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from ipaddress import ip_address

from gateway.relay.fair_share import Shares
from gateway.relay.policy import Address
from gateway.relay.poller import CLOSING, EDGE, FAILED, WRITE, Poller
from gateway.relay.splice import Joined, Pipes, abort, close

MOST_CONNECTIONS = 16_384
"""However many descriptors there are: what they cost the kernel in buffers has to end somewhere."""

MOST_DIALS = 4096
"""As many as the kernel keeps for a listener, since a relay that accepts them faster than it dials must not
refuse what comes at once. A dead destination takes a dial for ``DIAL_S``, so one guest can fill its share
with 180 a second; that costs its own next connections, and nobody else's."""

DIAL_S = 20.0
"""Four SYNs of Linux (at 0, 1, 3, 7 and 15 seconds) were not answered: the fifth will not be, either."""

WORST_DESCRIPTORS = 6
"""Of one connection: two sockets, and a pipe in each direction while both readers are stalled."""

KEEPALIVE = ((socket.TCP_KEEPIDLE, 120), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 4))
"""Seconds of silence, between questions, questions: a guest that is gone is noticed in four minutes."""

Deliver = Callable[[socket.socket | None], None]
Make = Callable[[Deliver], None]
"""Makes the socket to connect with, now or later, and delivers it; or None: it cannot be made."""

_DOWN = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


class DialState(enum.Enum):
    """Of a dial."""

    ASKED = "asked"
    CONNECTING = "connecting"
    JOINED = "joined"
    OVER = "over"


NEXT = {
    (DialState.ASKED, "socket"): DialState.CONNECTING,
    (DialState.ASKED, "failed"): DialState.OVER,
    (DialState.CONNECTING, "connected"): DialState.JOINED,
    (DialState.CONNECTING, "failed"): DialState.OVER,
    # Ignored, not prohibited, since it is only late: a socket or a failure for a dial that is over.
    (DialState.OVER, "socket"): DialState.OVER,
    (DialState.OVER, "failed"): DialState.OVER,
    # Prohibited: to be connected without a socket, to fail once joined.
}


class _Dial:
    __slots__ = ("began", "far", "near", "owner", "state", "target")

    def __init__(self, near: socket.socket, owner: Hashable, target: tuple[Address, int], now: float) -> None:
        self.near = near
        self.owner = owner
        self.target = target
        self.began = now
        self.far: socket.socket | None = None
        self.state = DialState.ASKED


class Connections:
    """All connections, whichever way they go."""

    def __init__(
        self,
        poller: Poller,
        counters: "Counter[str]",
        clock: Callable[[], float],
        nearby: Callable[[Address], bool] = lambda address: address.is_loopback,
    ) -> None:
        """``clock`` is monotonic, in seconds; ``nearby`` says whose packets never leave this machine."""
        self._poller = poller
        self._counters = counters
        self._clock = clock
        self._pipes = Pipes()
        self._nearby = nearby
        self._places = Shares(affordable())
        self._dial_places = Shares(MOST_DIALS)
        self._dials: OrderedDict[_Dial, None] = OrderedDict()
        self._joined: dict[Joined, Hashable] = {}

    def __len__(self) -> int:
        return len(self._joined) + len(self._dials)

    def start(self, near: socket.socket, owner: Hashable, target: tuple[Address, int], make: Make) -> None:
        """Join ``near``, which is this object's from now on, with a new connection to ``target``."""
        if not self._places.take(owner):
            self._refuse(near, "over_limit")
            return
        if not self._dial_places.take(owner):
            self._places.give_back(owner)
            self._refuse(near, "over_limit")
            return
        near.setblocking(False)
        dial = _Dial(near, owner, target, self._clock())
        self._dials[dial] = None
        self._poller.watch(near.fileno(), lambda events: self._near_event(dial, events), CLOSING | EDGE)
        make(lambda far: self._made(dial, far))

    def tick(self, now: float) -> None:
        """Give up what has been dialled for too long."""
        while self._dials and next(iter(self._dials)).began + DIAL_S <= now:
            self._failed(next(iter(self._dials)), errno.ETIMEDOUT)

    def deadline(self) -> float | None:
        """When to call ``tick``; None while nothing is dialled."""
        return next(iter(self._dials)).began + DIAL_S if self._dials else None

    def figures(self) -> dict[str, int]:
        """Return what there is now."""
        return {
            "connections": len(self._joined),
            "dials": len(self._dials),
            "pipes": self._pipes.lent,
            "connections_most": self._places.most,
        }

    def close(self) -> None:
        """Reset everything and close what is kept."""
        for dial in list(self._dials):
            self._failed(dial, errno.ECONNABORTED)
        for joined in list(self._joined):
            joined.reset()
        self._pipes.close()

    def _refuse(self, near: socket.socket, reason: str) -> None:
        self._counters[reason] += 1
        abort(near)

    def _made(self, dial: _Dial, far: socket.socket | None) -> None:
        if far is None:
            self._failed(dial, errno.EMFILE)
            return
        dial.state = NEXT[dial.state, "socket"]
        if dial.state is DialState.OVER:
            close(far)
            return
        dial.far = far
        far.setblocking(False)
        address, port = dial.target
        if self._nearby(address):
            forgo_pacing(far)
        try:
            error = far.connect_ex((str(address), port))
        except OSError as failure:
            error = failure.errno or errno.EIO
        if error not in (0, errno.EINPROGRESS):
            self._failed(dial, error)
            return
        self._poller.watch(far.fileno(), lambda _: self._far_event(dial), WRITE | EDGE)

    def _near_event(self, dial: _Dial, events: int) -> None:
        if events & FAILED and dial.near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._failed(dial, errno.ECONNABORTED)

    def _far_event(self, dial: _Dial) -> None:
        assert dial.far is not None
        error = dial.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(dial, error)
            return
        self._forget(dial, "connected")
        self._counters["joined"] += 1
        for sock in (dial.near, dial.far):
            tune(sock, self._nearby)
        self._joined[Joined(self._poller, self._pipes, dial.near, dial.far, self._ended)] = dial.owner

    def _failed(self, dial: _Dial, error: int) -> None:
        if dial.state is DialState.OVER:
            return
        self._forget(dial, "failed")
        self._places.give_back(dial.owner)
        self._counters[_why(error)] += 1
        for sock in (dial.near, dial.far):
            if sock is not None:
                self._poller.unwatch(sock.fileno())
                abort(sock)

    def _forget(self, dial: _Dial, event: str) -> None:
        dial.state = NEXT[dial.state, event]
        del self._dials[dial]
        self._dial_places.give_back(dial.owner)

    def _ended(self, joined: Joined, error: int) -> None:
        self._places.give_back(self._joined.pop(joined))
        self._counters["reset" if error else "ended"] += 1


def affordable() -> int:
    """How many connections the descriptors of this process allow, with a quarter kept for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MOST_CONNECTIONS, soft * 3 // 4 // WORST_DESCRIPTORS))


def forgo_pacing(sock: socket.socket) -> None:
    """Have a socket use Reno, which every user may choose, and whatever it accepts as well.

    Between sockets of one machine there is no bottleneck to find out about, and algorithms that pace what
    they send (BBR) lose by it. A socket that listens or is about to connect should be told: the kernel
    goes on pacing a connection that was made under BBR, by a timer for each segment, whatever it uses
    later. One stream from host to VM where BBR is the default, MTU 65,520, five pairs of runs: told when
    it was connected 12.7 (12.1 to 14.8) Gbit/s, told before 18.4 (18.0 to 18.7).
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def tune(sock: socket.socket, nearby: Callable[[Address], bool]) -> None:
    """Set what a relayed TCP socket needs: no waiting for more bytes, and a look for peers that are gone."""
    if sock.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if nearby(ip_address(sock.getpeername()[0])):
            forgo_pacing(sock)


def _why(error: int) -> str:
    """Return the counter that a failed dial goes to."""
    if error == errno.ECONNREFUSED:
        return "refused"
    if error == errno.ETIMEDOUT:
        return "timed_out"
    if error in _DOWN:
        return "unreachable"
    return "near_gone" if error == errno.ECONNABORTED else "failed"

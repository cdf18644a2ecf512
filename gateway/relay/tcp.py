"""Carry TCP connections through the gateway: admit, dial and join them.

**A guest's connection** is dialled before the guest is answered (``dial``): the far side's answer is passed
to the guest (``handshakes``). When the far side has answered, the connection waits for the guest's kernel to
complete its own handshake (``join``).

**A client of the host** is accepted by the host's kernel before the guest is known to answer (``start``).
If the guest then refuses, is unreachable or silent, the near end is reset. If the near end is reset during
the dial, the dial ends.

The states of a dial are in ``gateway.relay.dial``.

Bounds: descriptors (``descriptors``) and ``MOST_DIALS`` dials, both shared out by ``fair_share``; ten
thousand connections to a host that is switched off cost the next guest nothing. A dial that takes longer than
``DIAL_S`` is given up, and one that the near end does not take within ``ANSWERED_S``.
"""

import errno
import socket
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from forwarder.tcp_options import KEEPALIVE, PROBING, ask_after, forgo_pacing, silence_s, tune
from gateway.fair_share import Shares
from gateway.relay.counts import Counts
from gateway.relay.descriptors import OF_A_CONNECTION
from gateway.relay.dial import NEXT, Dial, Make, State, counter_of
from gateway.relay.policy import Address
from gateway.relay.poller import CLOSING, EDGE, FAILED, WRITE, Poller
from gateway.relay.splice import LINGER_S, Joined, Splices, abort, close

MOST_DIALS = 4096
"""As many as the kernel keeps for a listener, so that a burst is not refused. A dead destination takes a dial
for ``DIAL_S``, so one guest can fill its share with 180 a second; that costs only its own next
connections."""

DIAL_S = 20.0
"""Four SYNs of Linux (at 0, 1, 3, 7 and 15 seconds) were not answered: the fifth will not be, either."""

ANSWERED_S = 8.0
"""The namespace's kernel sends its answer three times in 7 seconds (``tcp_synack_retries`` of 2)."""

SETTLE_S = 0.02
"""Time between two checks of a connection of which one end has failed."""


class _Entry(NamedTuple):
    """A joined connection."""

    owner: Hashable
    guest: Address | str
    """Address of the guest."""
    is_near: bool
    """Whether the guest is at the near end."""


class Connections:
    """All connections, of both directions."""

    def __init__(
        self,
        poller: Poller,
        descriptors: Shares,
        counts: Counts,
        clock: Callable[[], float],
        nearby: Callable[[Address], bool] = lambda address: address.is_loopback,
    ) -> None:
        """``clock`` is monotonic, in seconds; ``nearby``: whether a peer's packets stay on this machine."""
        self._poller = poller
        self._counts = counts
        self._clock = clock
        self._splices = Splices(poller)
        self._nearby = lru_cache(maxsize=1024)(nearby)
        self._descriptors = descriptors
        self._dial_places = Shares(MOST_DIALS)
        self._dials: OrderedDict[Dial, None] = OrderedDict()
        self._answered: OrderedDict[Dial, None] = OrderedDict()
        self._joined: dict[Joined, _Entry] = {}
        self._lingering: dict[Joined, float] = {}
        self._settle_at = 0.0

    def __len__(self) -> int:
        return len(self._joined) + len(self._dials) + len(self._answered)

    def start(self, near: socket.socket, owner: Hashable, target: tuple[Address, int], make: Make) -> None:
        """Join ``near``, which this object closes, with a new connection to ``target``."""
        near.setblocking(False)
        dial = self._begin(Dial(owner, target, near, self._start_decided))
        if dial is None:
            abort(near)
            return
        if near.family != socket.AF_UNIX and _is_loopback(near):
            forgo_pacing(near)
        self._poller.watch(near.fileno(), lambda events: self._near_event(dial, events), CLOSING | EDGE)
        make(lambda far: self._made(dial, far))

    def dial(
        self,
        owner: Hashable,
        target: tuple[Address, int],
        make: Make,
        decided: Callable[[Dial, int], None],
    ) -> Dial | None:
        """Connect to ``target``; ``decided`` as for ``Dial``, perhaps at once.

        None if the share is used up.
        """
        dial = self._begin(Dial(owner, target, None, decided))
        if dial is not None:
            make(lambda far: self._made(dial, far))
        return dial

    def join(self, dial: Dial, near: socket.socket, guest: str) -> None:
        """Join an answered dial with ``near``, a guest's non-blocking socket, which this object closes."""
        dial.near = near
        self._join(dial, _Entry(dial.owner, guest, is_near=True))

    def tick(self, now: float) -> None:
        """Give up old dials, and end failed connections whose bytes have been delivered."""
        for waiting in (self._dials, self._answered):
            while waiting and next(iter(waiting)).end <= now:
                self._fail(next(iter(waiting)), errno.ETIMEDOUT)
        if self._lingering and self._settle_at <= now:
            self._settle_at = now + SETTLE_S
            for joined, end in list(self._lingering.items()):
                if end <= now:
                    joined.reset()
                else:
                    joined.settle()

    def deadline(self) -> float | None:
        """When to call ``tick``; None while nothing waits."""
        ends = [next(iter(waiting)).end for waiting in (self._dials, self._answered) if waiting]
        if self._lingering:
            ends.append(self._settle_at)
        return min(ends, default=None)

    def figures(self) -> dict[str, int]:
        """Return the present numbers."""
        return {
            "connections": len(self._joined),
            "dials": len(self._dials) + len(self._answered),
            "pipes": self._splices.lent,
            "connections_most": self._descriptors.most // OF_A_CONNECTION,
        }

    def peers(self) -> set[Address]:
        """Return the addresses of the guests that have connections."""
        return {ip_address(entry.guest) for entry in self._joined.values()}

    def probe(self, peers: set[Address]) -> None:
        """Make the kernel probe these peers once a second; ``reap`` ends that."""
        for _, sock in self._ends_at(peers):
            ask_after(sock, PROBING)

    def reap(self, peers: set[Address], silent_s: float) -> None:
        """Reset the connections of those peers that have acknowledged nothing for ``silent_s``."""
        for joined, sock in list(self._ends_at(peers)):
            try:
                gone = silence_s(sock) >= silent_s
            except OSError:  # the connection has ended meanwhile
                continue
            ask_after(sock, KEEPALIVE)
            if gone:
                self._counts["guest_gone"] += 1
                joined.reset()

    def close(self) -> None:
        """Reset all connections and close the pool."""
        for dial in [*self._dials, *self._answered]:
            self._fail(dial, errno.ECONNABORTED)
        for joined in list(self._joined):
            joined.reset()
        self._splices.close()

    def _begin(self, dial: Dial) -> Dial | None:
        address, port = dial.target
        if not self._descriptors.take(dial.owner, OF_A_CONNECTION):
            self._counts.refuse("over_limit", dial.owner, f"{address} port {port}")
            return None
        if not self._dial_places.take(dial.owner):
            self._descriptors.give_back(dial.owner, OF_A_CONNECTION)
            self._counts.refuse("over_limit", dial.owner, f"{address} port {port}")
            return None
        dial.end = self._clock() + DIAL_S
        self._dials[dial] = None
        return dial

    def _made(self, dial: Dial, far: socket.socket | None) -> None:
        if far is None:
            self._fail(dial, errno.EMFILE)
            return
        dial.state = NEXT[dial.state, "socket"]
        if dial.state is State.OVER:
            close(far)
            return
        dial.far = far
        if far.gettimeout() != 0:
            far.setblocking(False)
        address, port = dial.target
        tune(far, nearby=self._nearby(address), own=dial.near is None and address.is_loopback)
        try:
            error = far.connect_ex((str(address), port))
        except OSError as failure:
            error = failure.errno or errno.EIO
        if error == errno.EINPROGRESS:
            self._poller.watch(far.fileno(), lambda _: self._far_event(dial), WRITE | EDGE)
        elif error:
            self._fail(dial, error)
        else:
            self._connected(dial)

    def _near_event(self, dial: Dial, events: int) -> None:
        assert dial.near is not None
        if events & FAILED and dial.near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(dial, errno.ECONNABORTED)

    def _far_event(self, dial: Dial) -> None:
        if dial.state is not State.CONNECTING:
            return  # events before the join are reported again then
        assert dial.far is not None
        error = dial.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(dial, error)
        else:
            self._connected(dial)

    def _connected(self, dial: Dial) -> None:
        dial.state = NEXT[dial.state, "connected"]
        del self._dials[dial]
        dial.end = self._clock() + ANSWERED_S
        self._answered[dial] = None
        dial.decided(dial, 0)

    def _start_decided(self, dial: Dial, error: int) -> None:
        if not error:
            self._join(dial, _Entry(dial.owner, dial.target[0], is_near=False))

    def _join(self, dial: Dial, entry: _Entry) -> None:
        assert dial.near is not None
        assert dial.far is not None
        self._forget(dial, "taken")
        for sock in (dial.near, dial.far):
            self._poller.unwatch(sock.fileno())
        try:
            joined = Joined(self._splices, (dial.near, dial.far), self._ended, self._linger)
        except OSError:  # user.max_epoll_watches, or no memory
            self._descriptors.give_back(dial.owner, OF_A_CONNECTION)
            self._counts["failed"] += 1
            abort(dial.near)
            abort(dial.far)
            return
        self._counts["joined"] += 1
        self._joined[joined] = entry

    def _fail(self, dial: Dial, error: int) -> None:
        if dial.state is State.OVER:
            return
        self._forget(dial, "failed")
        self._descriptors.give_back(dial.owner, OF_A_CONNECTION)
        self._counts[counter_of(error)] += 1
        for sock in (dial.near, dial.far):
            if sock is not None:
                self._poller.unwatch(sock.fileno())
                abort(sock)
        dial.decided(dial, error)

    def _forget(self, dial: Dial, event: str) -> None:
        (self._answered if dial.state is State.ANSWERED else self._dials).pop(dial)
        dial.state = NEXT[dial.state, event]
        self._dial_places.give_back(dial.owner)

    def _linger(self, joined: Joined) -> None:
        now = self._clock()
        if not self._lingering:
            self._settle_at = now + SETTLE_S
        self._lingering[joined] = now + LINGER_S

    def _ended(self, joined: Joined, error: int) -> None:
        self._lingering.pop(joined, None)
        self._descriptors.give_back(self._joined.pop(joined).owner, OF_A_CONNECTION)
        self._counts["reset" if error else "ended"] += 1

    def _ends_at(self, peers: set[Address]) -> Iterable[tuple[Joined, socket.socket]]:
        for joined, entry in self._joined.items():
            if ip_address(entry.guest) in peers:
                yield joined, joined.sockets[0 if entry.is_near else 1]


def _is_loopback(sock: socket.socket) -> bool:
    """Whether the other end is on this machine, by its address."""
    try:
        return ip_address(sock.getpeername()[0]).is_loopback
    except OSError:  # it has gone
        return False

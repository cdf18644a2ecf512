"""Carry TCP connections through the gateway: admit, dial and join them.

**A guest's connection** is dialled before the guest is answered (``dial``): the far side's answer is passed
to the guest (``handshakes``). When the far side has answered, the connection waits for the guest's kernel to
complete its own handshake (``join``).

**A client of the host** is accepted by the host's kernel before the guest is known to answer (``start``).
If the guest then refuses, is unreachable or silent, the near end is reset. If the near end is reset during
the dial, the dial ends.

Here it is decided who may connect, and how long to wait. The core (``forwarder/_core/relay/splices.h``) makes
the system calls of a connection, moves its bytes, and reports what has become of it. If an end of a joined
connection fails, the other end still gets the bytes that came before: ``settle`` asks whether it has
acknowledged them, and after ``LINGER_S`` the connection is reset anyway. The states are in
``gateway.relay.connection``.

Bounds: descriptors (``descriptors``) and ``MOST_DIALS`` dials, both shared out by ``fair_share``; ten
thousand connections to a host that is switched off cost the next guest nothing. A dial that takes longer than
``DIAL_S`` is given up, and one that the near end does not take within ``ANSWERED_S``.
"""

import contextlib
import errno
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_address

from forwarder._core import (
    SPLICE_ANSWERED,
    SPLICE_FAILED,
    SPLICE_JOINED,
    SPLICE_LINGERS,
    SPLICE_OVER,
    Splices,
)
from forwarder.tcp_options import KEEPALIVE, PROBING, ask_after, of_a_connection, packed, silence_s
from gateway.fair_share import Shares
from gateway.relay.connection import NEXT, Connection, Make, State, counter_of
from gateway.relay.counts import Counts
from gateway.relay.descriptors import OF_A_CONNECTION
from gateway.relay.policy import Address
from gateway.relay.refused_ports import RefusedPorts
from gateway.relay.socket_errors import or_no_way

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

LINGER_S = 30.0
"""How long a reader may take for the bytes before a reset."""

_RESET = struct.pack("ii", 1, 0)


class Connections:
    """All connections, of both directions."""

    def __init__(
        self,
        core: Splices,
        descriptors: Shares,
        counts: Counts,
        clock: Callable[[], float],
        nearby: Callable[[Address], bool] = lambda address: address.is_loopback,
    ) -> None:
        """``clock`` is monotonic, in seconds; ``nearby``: whether a peer's packets stay on this machine."""
        self._core = core
        self._counts = counts
        self._clock = clock
        self._options = lru_cache(maxsize=1024)(
            lambda target, own: packed(of_a_connection(nearby=nearby(target), own=own))
        )
        self._descriptors = descriptors
        self._dial_places = Shares(MOST_DIALS)
        self._all: dict[int, Connection] = {}
        """By the core's number."""
        self._dials: OrderedDict[Connection, None] = OrderedDict()
        self._answered: OrderedDict[Connection, None] = OrderedDict()
        self._joined: dict[Connection, float] = {}
        """Each with the time at which it was joined."""
        self._lingering: dict[Connection, float] = {}
        self._settle_at = 0.0
        self.refused_ports = RefusedPorts(clock)
        self._take: dict[int, Callable[[Connection, int], None]] = {
            SPLICE_ANSWERED: self._answer,
            SPLICE_JOINED: self._meet,
            SPLICE_FAILED: self._fail,
            SPLICE_LINGERS: self._linger,
            SPLICE_OVER: self._end,
        }

    def __len__(self) -> int:
        return len(self._all)

    def start(
        self, near: int, owner: Hashable, target: tuple[Address, int], make: Make, *, is_unix: bool
    ) -> None:
        """Join ``near``, a non-blocking socket, with a new connection to ``target``, a guest."""
        connection = self._begin(Connection(owner, target, target[0], None), near, is_unix=is_unix)
        if connection is not None:
            make(lambda far: self._made(connection, far))

    def dial(
        self,
        owner: Hashable,
        target: tuple[Address, int],
        guest: bytes,
        decided: Callable[[Connection, int], None],
    ) -> Connection | None:
        """Connect to ``target`` for ``guest``; ``decided`` as for ``Connection``, perhaps at once.

        None if the share is used up.
        """
        connection = self._begin(Connection(owner, target, guest, decided), -1, is_unix=False)
        if connection is not None:
            self._connect(connection, -1)
        return connection

    def give_up(self, connection: Connection) -> None:
        """End a dial whose guest has left."""
        self._fail(connection, errno.ECONNABORTED)

    def join(self, connection: Connection, near: int) -> None:
        """Join an answered connection with ``near``, a guest's non-blocking socket."""
        try:
            self._core.join(connection.number, near)
        except OSError:  # user.max_epoll_watches, or no memory
            self._fail(connection, errno.ENOMEM)
        else:
            self._joins(connection)

    def reported(self, number: int, news: int, error: int) -> None:
        """Take what the core reports of a connection."""
        connection = self._all.get(number)
        if connection is not None:
            self._take[news](connection, error)

    def tick(self, now: float) -> None:
        """Give up old dials, and end failed connections whose bytes have been delivered."""
        for waiting in (self._dials, self._answered):
            while waiting and next(iter(waiting)).end <= now:
                self._fail(next(iter(waiting)), errno.ETIMEDOUT)
        if self._lingering and self._settle_at <= now:
            self._settle_at = now + SETTLE_S
            for connection, end in list(self._lingering.items()):
                error = self._core.settle(connection.number)
                if end <= now or error >= 0:
                    self._reset(connection, max(error, errno.ECONNABORTED))

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
            "pipes": self._core.lent(),
            "connections_most": self._descriptors.most // OF_A_CONNECTION,
        }

    def peers(self) -> dict[Address, float]:
        """Return the addresses of the guests that have connections, and when the first of each began."""
        found: dict[Address, float] = {}
        for connection, began in self._joined.items():
            found.setdefault(ip_address(connection.guest), began)
        return found

    def probe(self, peers: set[Address]) -> None:
        """Make the kernel probe these peers once a second; ``reap`` ends that."""
        for connection in self._of(peers):
            with self._guest_end(connection) as sock:
                ask_after(sock, PROBING)

    def reap(self, peers: set[Address], silent_s: float) -> None:
        """Reset the connections of those peers that have acknowledged nothing for ``silent_s``."""
        for connection in self._of(peers):
            with self._guest_end(connection) as sock:
                try:
                    gone = silence_s(sock) >= silent_s
                except OSError:  # the connection has ended meanwhile
                    continue
                ask_after(sock, KEEPALIVE)
            if gone:
                self._counts["guest_gone"] += 1
                self._reset(connection)

    def close(self) -> None:
        """Reset all connections."""
        for connection in [*self._dials, *self._answered]:
            self._fail(connection, errno.ECONNABORTED)
        for connection in list(self._joined):
            self._reset(connection)

    def _begin(self, connection: Connection, near: int, *, is_unix: bool) -> Connection | None:
        """Take the shares of a connection and its number; close ``near`` if there is none."""
        if not self._admit(connection):
            if near >= 0:
                abort(near)
            return None
        try:
            connection.number = self._core.begin(near, is_unix)
        except OSError:  # user.max_epoll_watches, or no memory; the core has closed it
            self._descriptors.give_back(connection.owner, OF_A_CONNECTION)
            self._dial_places.give_back(connection.owner)
            self._counts["failed"] += 1
            return None
        connection.end = self._clock() + DIAL_S
        self._all[connection.number] = connection
        self._dials[connection] = None
        return connection

    def _admit(self, connection: Connection) -> bool:
        owner, (address, port) = connection.owner, connection.target
        if self._descriptors.take(owner, OF_A_CONNECTION):
            if self._dial_places.take(owner):
                return True
            self._descriptors.give_back(owner, OF_A_CONNECTION)
        self._counts.refuse("over_limit", owner, f"{address} port {port}")
        return False

    def _made(self, connection: Connection, far: socket.socket | None) -> None:
        if far is None:
            self._fail(connection, errno.EMFILE)
        elif connection.state is State.OVER:
            far.close()
        else:
            self._connect(connection, far.detach())

    def _connect(self, connection: Connection, far: int) -> None:
        connection.state = NEXT[connection.state, "socket"]
        address, port = connection.target
        own = connection.guest_is_near and address.is_loopback
        options = self._options(address, own)
        error = self._core.connect(connection.number, far, address.packed, port, own, options)
        if not error:
            self._answer(connection, 0)
        elif error != errno.EINPROGRESS:
            self._fail(connection, or_no_way(error, address) if connection.guest_is_near else error)

    def _answer(self, connection: Connection, _: int) -> None:
        """Take the answer of the far side of a guest's connection."""
        connection.state = NEXT[connection.state, "connected"]
        del self._dials[connection]
        connection.end = self._clock() + ANSWERED_S
        self._answered[connection] = None
        assert connection.decided is not None
        connection.decided(connection, 0)

    def _meet(self, connection: Connection, _: int) -> None:
        """Take note that a guest has answered a client, and that the core has joined them."""
        connection.state = NEXT[connection.state, "connected"]
        self.refused_ports.answered(connection.target)
        self._joins(connection)

    def _joins(self, connection: Connection) -> None:
        self._forget(connection, "taken")
        self._counts["joined"] += 1
        self._joined[connection] = self._clock()

    def _fail(self, connection: Connection, error: int) -> None:
        """End a connection that is not joined."""
        if connection.state is State.OVER:
            return
        self._forget(connection, "failed")
        self._give_back(connection)
        self._counts[counter_of(error)] += 1
        self._core.end(connection.number, True)
        if connection.decided is not None:
            connection.decided(connection, error)
        elif error != errno.ECONNABORTED:  # the client has not left
            self.refused_ports.failed(connection.target, counter_of(error))

    def _forget(self, connection: Connection, event: str) -> None:
        """Take a connection off the dials."""
        self._dials.pop(connection, None)
        self._answered.pop(connection, None)
        connection.state = NEXT[connection.state, event]
        self._dial_places.give_back(connection.owner)

    def _linger(self, connection: Connection, _: int) -> None:
        """Take note that one end of a joined connection has failed."""
        now = self._clock()
        if not self._lingering:
            self._settle_at = now + SETTLE_S
        self._lingering[connection] = now + LINGER_S

    def _reset(self, connection: Connection, error: int = errno.ECONNABORTED) -> None:
        self._core.end(connection.number, True)
        self._end(connection, error)

    def _end(self, connection: Connection, error: int) -> None:
        """Take note that a joined connection is over."""
        connection.state = NEXT[connection.state, "ended"]
        self._lingering.pop(connection, None)
        del self._joined[connection]
        self._give_back(connection)
        self._counts["reset" if error else "ended"] += 1

    def _give_back(self, connection: Connection) -> None:
        del self._all[connection.number]
        self._descriptors.give_back(connection.owner, OF_A_CONNECTION)

    def _of(self, peers: set[Address]) -> Iterable[Connection]:
        return [connection for connection in self._joined if ip_address(connection.guest) in peers]

    def _guest_end(self, connection: Connection) -> contextlib.AbstractContextManager[socket.socket]:
        near, far = self._core.sockets(connection.number)
        return borrowed(near if connection.guest_is_near else far)


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Lend a socket of the core, which stays open; it needs no further descriptor."""
    sock = socket.socket(fileno=descriptor)
    try:
        yield sock
    finally:
        sock.detach()


def abort(descriptor: int) -> None:
    """Close a socket so that its peer sees a reset; a unix socket, without resets, is closed as usual."""
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

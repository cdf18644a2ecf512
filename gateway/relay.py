"""The relay: everything that carries bytes between the LAN's namespace and the host, in one process and loop.

It composes and decides nothing itself: where guests may go is ``policy``, what is forwarded ``forwards``,
how TCP is carried ``tcp`` and ``splice``.

Sockets made in the namespace stay in it wherever they are used, so the process inside only makes them
(``make``), and all that waits, connects, splices or times out is here. The relay polls in a set of its own,
which is one descriptor in the loop of the process.

A forward that is removed lets its connections finish.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address

from forwarder.errors import LocalError
from forwarder.loop import Loop
from gateway.forwards import Forward, Forwards
from gateway.listening import Listener, listen, unlisten
from gateway.policy import Address, Policy, judge
from gateway.poller import Poller
from gateway.splice import abort
from gateway.tcp import Connections, Deliver, raise_descriptor_limit

MakeInside = Callable[[str, Deliver], None]
"""Makes a socket in the namespace, of kind "tcp4", "tcp6", "udp4" or "udp6", and delivers it or None."""


class Relay:
    """All that is relayed. Watch it with ``loop``; call ``tick`` when ``deadline`` says so."""

    def __init__(
        self, loop: Loop, make: MakeInside, policy: Policy, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        raise_descriptor_limit()
        self._loop = loop
        self._make = make
        self._policy = policy
        self._clock = clock
        self._counters: Counter[str] = Counter()
        self._poller = Poller()
        self._connections = Connections(self._poller, self._counters, clock)
        self._forwards = Forwards(policy)
        self._served: list[tuple[socket.socket, Listener]] = []
        self._listening: dict[Forward, tuple[socket.socket, Listener]] = {}
        loop.watch(self._poller.fileno(), lambda _: self._poller.turn())

    def serve(self, sockets: dict[str, socket.socket]) -> None:
        """Accept from the namespace's listeners, which are the relay's from now on.

        "tcp4" and "tcp6" are transparent: the address of an accepted socket is what the guest asked for.
        "dns-tcp" gets questions for the host's resolver.
        """
        for name, sock in sockets.items():
            accepted = self._to_resolver if name == "dns-tcp" else self._outbound
            self._served.append((sock, Listener(self._poller, sock, accepted, self._clock)))

    def add(self, forward: Forward) -> Forward:
        """Start to forward; return the forward with its real port. Raises LocalError: nothing changed."""
        self._forwards.check(forward)
        if forward.kind == "udp":
            raise LocalError(f"forward {forward}: datagrams are not forwarded yet; use tcp or unix")
        sock, real = listen(forward)
        self._forwards.add(real)
        listener = Listener(self._poller, sock, partial(self._inbound, real), self._clock)
        self._listening[real] = (sock, listener)
        return real

    def remove(self, forward: Forward) -> None:
        """Stop to forward; what is connected stays. Raises LocalError: there is no such forward."""
        self._forwards.remove(forward)
        sock, listener = self._listening.pop(forward)
        listener.close()
        unlisten(forward, sock)

    def forwards(self) -> list[Forward]:
        """Return all forwards, in the order in which they were added."""
        return list(self._forwards)

    def counters(self) -> dict[str, int]:
        """Return what happened since the start, and what there is now."""
        return dict(self._counters) | self._connections.figures() | {"forwards": len(self._forwards)}

    def tick(self, now: float) -> None:
        """Do what time asks for, and what the last turn left undone."""
        self._connections.tick(now)
        for listener in self._listeners():
            listener.tick(now)
        if self._poller.busy:
            self._poller.turn()

    def deadline(self) -> float | None:
        """Return when to call ``tick``, in monotonic seconds; None: only when something happens."""
        if self._poller.busy:
            return self._clock()
        ends = [self._connections.deadline(), *(listener.deadline() for listener in self._listeners())]
        return min((end for end in ends if end is not None), default=None)

    def close(self) -> None:
        """Reset every connection and close everything, the served sockets too."""
        for forward in self.forwards():
            self.remove(forward)
        for sock, listener in self._served:
            listener.close()
            sock.close()
        self._served.clear()
        self._connections.close()
        self._loop.unwatch(self._poller.fileno())
        self._poller.close()

    def _listeners(self) -> list[Listener]:
        return [listener for _, listener in (*self._served, *self._listening.values())]

    def _outbound(self, near: socket.socket) -> None:
        """Carry a guest's connection to where it wants to go."""
        try:
            asked, port = near.getsockname()[:2]
            guest = near.getpeername()[0]
        except OSError:  # reset while it waited to be accepted
            abort(near)
            return
        target, refused = judge(self._policy, ip_address(asked))
        if target is not None and not self._policy.host_access and is_own(target):
            target, refused = None, "no_host_access"
        if target is None:
            self._counters[refused] += 1
            abort(near)
            return
        family = socket.AF_INET if target.version == 4 else socket.AF_INET6
        self._connections.start(near, guest, (target, port), partial(make_on_host, family))

    def _to_resolver(self, near: socket.socket) -> None:
        if not self._policy.resolver:
            abort(near)
            return
        address, port = self._policy.resolver[0]
        target = ip_address(address)
        family = socket.AF_INET if target.version == 4 else socket.AF_INET6
        self._connections.start(near, "dns", (target, port), partial(make_on_host, family))

    def _inbound(self, forward: Forward, near: socket.socket) -> None:
        """Carry a connection of one of the host's clients to a guest."""
        make = partial(self._make, f"tcp{forward.guest.version}")
        self._connections.start(near, forward.near, (forward.guest, forward.guest_port), make)


def make_on_host(family: int, deliver: Deliver) -> None:
    """Make a TCP socket here and deliver it."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        deliver(None)
        return
    deliver(sock)


def is_own(address: Address) -> bool:
    """Whether ``address`` is one of this host's: only such an address can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True

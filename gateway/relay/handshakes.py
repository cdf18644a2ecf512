"""The first segments of guests' connections: a guest is answered when the far side has answered, as it did.

A SYN is held back: the packet filter drops it in the namespace, the packet sockets show it here
(``frames``), and the far side is dialled. Then

- it answered: the SYN is written into the TUN device as it was, and the namespace's kernel, which lets SYNs
through that come by that device, completes the handshake with the guest; the connection that it accepts is
joined with the one that waits for it, by addresses and ports; - it refused: the guest gets a reset, as from
a host where nobody listens; - it cannot be reached: the guest gets the ICMP error that says so; so does who
may not go there; - it is silent, or the guest's share is used up: so is the gateway. The guest's kernel
tries again until its own time-out.

A guest asks again after a second: its SYN is written once more if the far side has answered meanwhile, and
does nothing while it has not. A guest that gives up while its connection is dialled is found out by the
kernel's answer, which it refuses; the connection that waits is given up after ``tcp.ANSWERED_S``.

Bounds are those of the dials, each guest's share of them (``tcp``): the namespace's kernel never has more
half-open connections than there are dials. And ``FAILURES``: a guest that scans ports spends what it has of
them, and is not answered for a while.
"""

import errno
import os
import socket
from collections.abc import Hashable
from functools import partial

from forwarder._core import SHED_SYN
from gateway.ip.answers import reset
from gateway.ip.packets import Packet, Syn
from gateway.rates import Rates
from gateway.relay import socket_errors
from gateway.relay.flow_context import Common
from gateway.relay.frames import Sender
from gateway.relay.nat import Judge
from gateway.relay.splice import abort
from gateway.relay.tcp import Connections, Dial, State, make_on_host
from gateway.relay.tun import Speaker

FAILURES = (100.0, 300, 0)
"""Connections of a port that may fail in a second, at one moment, and none that wait. A client that tries ten
places again and again stays far below, and a router limits its errors, too (RFC 1812 4.3.2.8)."""

SHED_S = 0.01
"""How long the SYNs of one that has spent them are only counted: until it has another one."""

Place = tuple[str, int]
Key = tuple[Place, Place]
"""The guest's address and port, and those that it asked for."""


class Handshakes:
    """The connections that guests have asked for and not got yet."""

    def __init__(
        self,
        connections: Connections,
        speaker: Speaker,
        judge: Judge,
        common: Common,
    ) -> None:
        """Have the core of ``common`` shed what is of no use for a moment."""
        _, _, self._counts, self._clock, self._core = common
        self._connections = connections
        self._speaker = speaker
        self._judge = judge
        self._failures = Rates(*FAILURES)
        self._dials: dict[Key, Dial | None] = {}

    def syn(self, syn: Syn, whole: list[bytes], way: Packet, sender: Sender) -> None:
        """Take the first segment of a connection; ``whole`` is what the TUN device is to be given of it."""
        family = socket.AF_INET if way.version == 4 else socket.AF_INET6
        key = (
            (socket.inet_ntop(family, syn.source), syn.source_port),
            (socket.inet_ntop(family, syn.destination), syn.port),
        )
        if key in self._dials:
            dial = self._dials[key]
            if dial is not None and dial.state is State.ANSWERED:
                self._speaker.write([*whole])
            return
        if self._failures.is_spent(sender.owner, self._clock()):
            self._counts.refuse("over_limit", sender, f"{key[1][0]} port {syn.port}, after many that failed")
            self._core.shed(sender.mac, SHED_SYN, SHED_S)
            return
        if way.hops <= 1:
            self._speaker.refuse(syn.source, (socket_errors.TIME_EXCEEDED[way.version], 0), whole[1])
            return
        target, refused = self._judge(syn.destination)
        if target is None:
            self._counts.refuse(refused, sender, f"{key[1][0]} port {syn.port}")
            self._speaker.refuse(syn.source, socket_errors.PROHIBITED[way.version], whole[1])
            return
        self._dials[key] = None  # the answer may come while it is asked for
        decided = partial(self._decided, key, syn, whole)
        dial = self._connections.dial(
            sender.owner, (target, syn.port), partial(make_on_host, family, socket.SOCK_STREAM), decided
        )
        if dial is None:
            del self._dials[key]
        elif key in self._dials:
            self._dials[key] = dial

    def forget(self, owner: Hashable) -> None:
        """Forget a port that has left."""
        self._failures.forget(owner)

    def accepted(self, near: socket.socket) -> None:
        """Join a connection that the namespace's kernel has made with the one that waits for it."""
        try:
            key = (near.getpeername()[:2], near.getsockname()[:2])
        except OSError:  # reset while it waited to be accepted
            abort(near)
            return
        dial = self._dials.get(key)
        if dial is None or dial.state is not State.ANSWERED:
            self._counts["stray"] += 1
            abort(near)
            return
        del self._dials[key]
        self._connections.join(dial, near, key[0][0])

    def _decided(self, key: Key, syn: Syn, whole: list[bytes], dial: Dial, error: int) -> None:
        if not error:
            self._dials[key] = dial
            self._speaker.write([*whole])
            return
        del self._dials[key]
        self._failures.take(dial.owner, self._clock())
        if error == errno.ECONNREFUSED:
            self._speaker.write(reset(syn))
            return
        version = 4 if len(syn.source) == 4 else 6
        said = socket_errors.as_icmp(OSError(error, os.strerror(error)), version)
        if said is not None:
            self._speaker.refuse(syn.source, said, whole[1])

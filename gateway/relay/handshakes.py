"""The handshakes of guests' connections: a guest gets its answer when the far side has answered.

The packet filter drops a SYN in the namespace; the packet sockets deliver it here (``frames``), and the far
side is dialled. The guest gets the same answer as the far side gave:

- it answered: the SYN is written into the TUN device, and the namespace's kernel, which accepts SYNs from
  that device, completes the handshake with the guest; the accepted connection is joined with the waiting one,
  by addresses and ports;
- it refused: the guest gets a reset, as from a closed port;
- it cannot be reached, or the policy forbids it: the guest gets the ICMP error that says so;
- it is silent, or the guest's share is used up: the guest gets no answer, and its kernel repeats the SYN
  until its own time-out.

A guest repeats its SYN after a second: it is written once more if the far side has answered meanwhile, and
ignored otherwise. If a guest gives up during the dial, it refuses the kernel's answer; the waiting connection
is given up after ``tcp.ANSWERED_S``.

Bounds: the dials, each guest's share of them (``tcp``), so the namespace's kernel never has more half-open
connections than there are dials. And ``FAILURES``: a guest that scans ports uses them up, and then gets no
answers for a while.
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
from gateway.relay.dial import Dial, State, make_on_host
from gateway.relay.flow_context import Common
from gateway.relay.frames import Sender
from gateway.relay.nat import Judge
from gateway.relay.splice import abort
from gateway.relay.tcp import Connections
from gateway.relay.tun import Speaker

FAILURES = (100.0, 300, 0)
"""Failed connections of a port: per second, in a burst, and none that wait. A client that tries ten
places again and again stays far below, and a router limits its errors, too (RFC 1812 4.3.2.8)."""

SHED_S = 0.01
"""Time for which the SYNs of a port without failures left are only counted: until it has another one."""

Place = tuple[str, int]
Key = tuple[Place, Place]
"""The guest's address and port, and the requested ones."""


class Handshakes:
    """The connections that guests have asked for and do not have yet."""

    def __init__(
        self,
        connections: Connections,
        speaker: Speaker,
        judge: Judge,
        common: Common,
    ) -> None:
        """Shed useless SYNs in the core of ``common`` for a moment."""
        _, _, self._counts, self._clock, self._core = common
        self._connections = connections
        self._speaker = speaker
        self._judge = judge
        self._failures = Rates(*FAILURES)
        self._dials: dict[Key, Dial | None] = {}

    def syn(self, syn: Syn, whole: list[bytes], way: Packet, sender: Sender) -> None:
        """Take the first segment of a connection; ``whole`` is the packet for the TUN device."""
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
        self._dials[key] = None  # the answer may come at once
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
        """Join a connection of the namespace's kernel with its dial."""
        try:
            key = (near.getpeername()[:2], near.getsockname()[:2])
        except OSError:  # reset before it was accepted
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

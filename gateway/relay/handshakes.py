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
import socket
from collections.abc import Hashable
from functools import partial

from forwarder._core import SHED_SYN
from gateway.ip.answers import VNET_HEADER, reset
from gateway.ip.packets import Syn, parse, read
from gateway.rates import Rates
from gateway.relay import socket_errors
from gateway.relay.connection import Connection, State
from gateway.relay.flow_context import Common
from gateway.relay.frames import Sender
from gateway.relay.nat import Judge
from gateway.relay.tcp import Connections, abort
from gateway.relay.tun import Speaker

FAILURES = (100.0, 300, 0)
"""Failed connections of a port: per second, in a burst, and none that wait. A client that tries ten
places again and again stays far below, and a router limits its errors, too (RFC 1812 4.3.2.8)."""

SHED_S = 0.01
"""Time for which the SYNs of a port without failures left are only counted: until it has another one."""

Key = bytes
"""The guest's address and port, and the requested ones, as they are in the packet."""

_BYTES = {12: 4, 36: 16}
"""Bytes of an address, by those of a key."""


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
        self._dials: dict[Key, Connection | None] = {}

    def syn(self, key: Key, hops: int, whole: bytes, sender: Sender) -> None:
        """Take the first segment of a connection; ``whole`` is the packet for the TUN device."""
        if key in self._dials:
            dial = self._dials[key]
            if dial is not None and dial.state is State.ANSWERED:
                self._speaker.write([whole])
            return
        size = _BYTES[len(key)]
        source, asked = key[:size], key[size + 2 : -2]
        if self._failures.is_spent(sender.owner, self._clock()):
            self._counts.refuse("over_limit", sender, f"{_place(asked, key)}, after many that failed")
            self._core.shed(sender.mac, SHED_SYN, SHED_S)
            return
        if hops <= 1:
            self._refuse(source, (socket_errors.TIME_EXCEEDED[_version(key)], 0), whole)
            return
        target, refused = self._judge(asked)
        if target is None:
            self._counts.refuse(refused, sender, _place(asked, key))
            self._refuse(source, socket_errors.PROHIBITED[_version(key)], whole)
            return
        self._dials[key] = None  # the answer may come at once
        decided = partial(self._decided, key, whole)
        dial = self._connections.dial(sender.owner, (target, _port(key)), source, decided)
        if dial is None:
            del self._dials[key]
        elif key in self._dials:
            self._dials[key] = dial

    def forget(self, owner: Hashable) -> None:
        """Give up the dials of a port that has left: another VM may have the guest's IP address soon.

        A VM that comes back asks again, as for a SYN that was lost.
        """
        for dial in [each for each in self._dials.values() if each is not None and each.owner == owner]:
            self._connections.give_up(dial)
        self._failures.forget(owner)

    def accepted(self, near: int, peer: bytes, own: bytes) -> None:
        """Join a connection of the namespace's kernel with its dial."""
        dial = self._dials.get(peer + own)
        if dial is None or dial.state is not State.ANSWERED:
            self._counts["stray"] += 1
            abort(near)
            return
        del self._dials[peer + own]
        self._connections.join(dial, near)

    def _decided(self, key: Key, whole: bytes, dial: Connection, error: int) -> None:
        if not error:
            self._dials[key] = dial
            self._speaker.write([whole])
            return
        self._dials.pop(key, None)
        self._failures.take(dial.owner, self._clock())
        if error == errno.ECONNREFUSED:
            self._speaker.write(reset(_syn(whole)))
            return
        said = socket_errors.as_icmp(error, _version(key))
        if said is not None:
            self._refuse(key[: _BYTES[len(key)]], said, whole)

    def _refuse(self, guest: bytes, said: tuple[int, int], whole: bytes) -> None:
        self._speaker.refuse(guest, said, whole[VNET_HEADER.size :])


def _version(key: Key) -> int:
    return 4 if _BYTES[len(key)] == 4 else 6


def _port(key: Key) -> int:
    return int.from_bytes(key[-2:], "big")


def _place(asked: bytes, key: Key) -> str:
    """Return what was asked for, to log it."""
    family = socket.AF_INET if len(asked) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, asked)} port {_port(key)}"


def _syn(whole: bytes) -> Syn:
    """Read the packet of a SYN that has been read before."""
    packet = parse(memoryview(whole)[VNET_HEADER.size :])
    assert packet is not None
    syn = read(packet, summed=False)
    assert isinstance(syn, Syn)
    return syn

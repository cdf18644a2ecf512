"""The maker: a process that makes everything in the gateway's namespace, and ends then.

Theory of operation
-------------------
Python's modules take memory, and Python writes to the pages of what it runs, be it only once. So the process
that holds the namespace, which needs little of this later, forks another one for it: its 4 MiB are given back
when it ends. It imports its modules while the gateway imports its own, reads the gateway's first message from
the channel of both, and sends the descriptors. It answers only if it has failed.

Example: process 1 of the namespace forks 2, and waits. 2 reads ``make``, makes the TAP, runs ip (3, 4) and
nft (5), sends three messages and ends with 0; 1 enters its cell and answers.
"""

import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from forwarder import _core
from forwarder.channel import Channel
from forwarder.errors import LocalError, PeerError, shortage
from forwarder.messages import Command, Handover, Reply
from forwarder.names import GATEWAY_MAC
from forwarder.tcp_options import forgo_pacing
from gateway import bpf
from gateway.inside import addresses, limits, nft, transparent
from gateway.inside.interfaces import LAN, OUT
from gateway.lan import filters
from gateway.lan.frames import IPV4, IPV6
from gateway.relay import frame_sockets
from gateway.relay.tun import open_tun
from gateway.settings import Settings, read

BACKLOG = 4096
"""Connections that may wait for accept: the kernel's maximum."""

PACKET_BYTES = 1 << 20
"""Bytes of frames that may wait to be read; the kernel may allow less. A thousand guests may ask at once."""


def make(channel: Channel) -> bool:
    """Make what the channel's first message says, and send it. Returns whether that was possible."""
    try:
        _make(channel, read(_told(channel)))
    except LocalError as error:
        channel.send(Reply(False, str(error)))
        return False
    while channel.wants_write:
        select.select([], [channel], [])
        channel.flush()
    return True


def _told(channel: Channel) -> Mapping[str, object]:
    """Wait for the settings. Raises PeerError."""
    while (received := channel.receive()) is None:
        select.select([channel], [], [])
    match received[0]:
        case Command("make", {"settings": dict(settings)}):
            return cast(Mapping[str, object], settings)
    raise PeerError(f"an unexpected {type(received[0]).__name__}")


def _make(channel: Channel, settings: Settings) -> None:
    """Make TAP, TUN, addresses, rules and sockets, and send all that have a descriptor. Raises LocalError."""
    try:
        tap, _ = _core.tap_open(LAN, -1, GATEWAY_MAC)
    except OSError as error:
        raise LocalError(
            f"cannot make the gateway's TAP: {error.strerror}; load the tun module, and give this user "
            "read and write access to /dev/net/tun"
        ) from None
    try:
        tun = open_tun(OUT)
        addresses.set_up(settings)
        nft.load(nft.rules(settings, LAN) + limits.rules(LAN))
        listeners = _listen(settings)
        for number, sock in enumerate(frame_sockets.open_all(LAN, settings.policy)):
            listeners[f"frames{number}"] = sock
    except OSError as error:
        raise LocalError(f"cannot set up the gateway's namespace: {shortage(error)}") from None
    channel.send(Handover("tap", {}, 1), (tap,))
    channel.send(Handover("tun", {}, 1), (tun,))
    message = Handover("listeners", {"names": list(listeners)}, len(listeners))
    channel.send(message, [each.fileno() for each in listeners.values()])


def _listen(settings: Settings) -> dict[str, socket.socket]:
    """Return the host side's sockets by name: listeners, and packet sockets for questions."""
    dns4 = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    dns6 = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    gateway4, gateway6 = settings.policy.gateway4, settings.gateway6
    dns4.bind((str(gateway4), filters.DNS_PORT))
    dns6.bind((str(gateway6), filters.DNS_PORT))
    for sock in (dns4, dns6):
        forgo_pacing(sock)
        sock.listen(BACKLOG)
    packets = {
        "leases": _packet_socket(IPV4, filters.leases()),
        "lan4": _packet_socket(IPV4, filters.ipv4(gateway4.packed)),
        "lan6": _packet_socket(IPV6, filters.ipv6(gateway6.packed)),
    }
    made = {**transparent.listen(), "dns4": dns4, "dns6": dns6, **packets}
    for sock in made.values():
        sock.setblocking(False)
    return made


def _packet_socket(kind: int, program: list[bpf.Step]) -> socket.socket:
    """Return a packet socket for the frames of one EtherType on the LAN that pass a filter."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # receives nothing until it is bound
    bpf.attach(sock, program)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PACKET_BYTES)
    sock.bind((LAN, kind))
    return sock

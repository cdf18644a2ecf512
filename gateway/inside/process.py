"""The process that holds the gateway's network namespace: ``python -m gateway.inside DESCRIPTOR``.

Theory of operation
-------------------
``gateway.namespace`` starts it in a network namespace of its own. It makes the TAP and the sockets in there,
and passes them to the host side. A socket belongs to the namespace in which it was made, whichever process
uses it. So the host side connects, accepts and answers by itself, and no traffic of a guest passes through
this process.

When it has made everything it enters its cell (``forwarder.cell``): what it can do afterwards is make sockets
of TCP and UDP, and ask its kernel two things (``kernel``).

It lives as long as its channel. The network namespace goes with its last user, and what is in it needs no
cleaning up.
"""

import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from forwarder import _core, cell
from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import BulkheadError, LocalError
from forwarder.loop import Loop, failure
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Command, Handover, Message, Reply
from forwarder.tcp_options import forgo_pacing
from gateway import bpf
from gateway.inside import addresses, limits, nft, transparent
from gateway.inside.kernel import Kernel
from gateway.lan import filters
from gateway.lan.frames import IPV4, IPV6
from gateway.relay import frame_sockets
from gateway.relay.tun import open_tun
from gateway.settings import Settings, read

IDLE_S = 3600.0
BACKLOG = 4096
"""Connections that may wait for accept: the kernel's maximum."""

PACKET_BYTES = 1 << 20
"""Bytes of frames that may wait to be read; the kernel may allow less. A thousand guests may ask at once."""

KINDS = {
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
}
"""Sockets that the host side may ask for."""


class Inside:
    """The namespace, from its creation to its end."""

    def __init__(self, channel: LoopChannel) -> None:
        self._channel = channel
        self._loop = Loop(self._failed)
        self._done = False
        self._kernel: Kernel | None = None
        self._refusals = cell.Refusals()

    def run(self) -> None:
        """Serve until the channel ends."""
        self._channel.watch(self._loop, self._receive)
        try:
            while not self._done:
                self._loop.turn(IDLE_S)
                news = self._refusals.news()
                if news is not None:
                    self._channel.send(Command("refused", {"count": news[0], "last": news[1]}))
        except ChannelClosedError:
            pass

    def _failed(self) -> None:
        self._channel.send(Command("log", {"level": "error", "text": f"the namespace failed: {failure()}"}))

    def _receive(self) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                self._on_message(received[0])
        except ChannelClosedError:
            self._done = True
        except Exception:
            self._done = True  # a namespace that its gateway cannot reach is of no use
            raise

    def _on_message(self, message: Message) -> None:
        if not isinstance(message, Command):
            return
        if message.name == "sockets":
            self._give_sockets(str(message.arguments["kind"]), cast(int, message.arguments["count"]))
            return
        result: object = None
        try:
            if message.name == "make":
                self._make(message.arguments)
                result = cell.plain(cell.enter("namespace"))
            elif message.name == "neighbours" and self._kernel is not None:
                result = self._kernel.neighbours()
            elif message.name == "flooded" and self._kernel is not None:
                result = self._kernel.flooded()
            self._channel.send(Reply(True, result))
        except LocalError as error:
            self._channel.send(Reply(False, str(error)))

    def _make(self, arguments: Mapping[str, object]) -> None:
        settings = read(cast(Mapping[str, object], arguments["settings"]))
        try:
            tap, _ = _core.tap_open(addresses.LAN)
        except OSError as error:
            raise LocalError(
                f"cannot make the gateway's TAP: {error.strerror}; load the tun module, and give this user "
                "read and write access to /dev/net/tun"
            ) from None
        made = [tap]
        listeners: dict[str, socket.socket] = {}
        try:
            tun = open_tun(addresses.OUT)
            made.append(tun)
            addresses.set_up(settings)
            nft.load(nft.rules(settings, addresses.LAN) + limits.rules(addresses.LAN))
            self._kernel = Kernel(addresses.LAN)
            listeners = _listen(settings)
            for number, sock in enumerate(frame_sockets.open_all(addresses.LAN, settings.policy)):
                listeners[f"frames{number}"] = sock
            self._channel.send(Handover("tap", {}, 1), (tap,))
            self._channel.send(Handover("tun", {}, 1), (tun,))
            message = Handover("listeners", {"names": list(listeners)}, len(listeners))
            self._channel.send(message, [each.fileno() for each in listeners.values()])
        except OSError as error:
            raise LocalError(f"cannot set up the gateway's namespace: {error.strerror}") from None
        finally:
            close_all(made)
            for each in listeners.values():
                each.close()

    def _give_sockets(self, kind: str, count: int) -> None:
        """Send so many sockets, or fewer if descriptors or memory are short: perhaps none."""
        family, type_ = KINDS[kind]
        made: list[socket.socket] = []
        with suppress(OSError):  # no descriptor is left, or no memory
            while len(made) < count:
                made.append(socket.socket(family, type_ | socket.SOCK_NONBLOCK))
        try:
            message = Handover("sockets", {"kind": kind, "asked": count}, len(made))
            self._channel.send(message, [each.fileno() for each in made])
        finally:
            for each in made:
                each.close()


def _listen(settings: Settings) -> dict[str, socket.socket]:
    """Return the host side's sockets by name: listeners, and packet sockets for questions."""
    dns4, dns6 = socket.socket(*KINDS["tcp4"]), socket.socket(*KINDS["tcp6"])
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
    sock.bind((addresses.LAN, kind))
    return sock


def main() -> None:
    """Run with the channel whose descriptor is the only argument."""
    channel = LoopChannel(socket.socket(fileno=int(sys.argv[1])))
    with suppress(KeyboardInterrupt, BulkheadError):
        Inside(channel).run()

"""The process that holds the gateway's network namespace: ``python -m gateway.inside DESCRIPTOR``.

Theory of operation
-------------------
It is started in a network namespace of its own (``holder`` says how), makes everything in it that needs to
be made from within, and hands it out: the TAP, and sockets. A socket belongs to the namespace in which it was
made, whoever holds it, so the host side connects, accepts and joins connections itself, and nothing that a
guest sends ever passes through this process. It keeps dnsmasq running, under the restart budget; when that
is used up it ends and says so, and the whole gateway is somebody else's to start again.

It lives as long as its channel. It is the first process of its namespace of process ids, so the kernel ends
dnsmasq with it; the network namespace goes with its last user, and what is in it needs no cleaning up.
"""

import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

from forwarder import _core
from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import BulkheadError, LocalError
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.restart_budget import Budget, Losses
from forwarder.wire import Command, Handover, Message, Reply
from gateway.api.names import Zone
from gateway.inside import netlink, nft
from gateway.inside.dnsmasq import UPSTREAM, Dnsmasq, configuration
from gateway.inside.nft import TCP_PORT
from gateway.relay.tcp import forgo_pacing
from gateway.relay.tun import open_tun
from gateway.settings import Settings, read, zones

DNSMASQ_S = 5.0
"""dnsmasq answers some ten milliseconds after its start; on a machine that swaps it takes seconds."""

IDLE_S = 3600.0
BACKLOG = 4096
"""Connections that wait to be accepted: what the kernel allows."""

_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75

KINDS = {
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
}
"""Sockets that the host side may ask for."""


class Inside:
    """The namespace, from its making to its end."""

    def __init__(self, channel: LoopChannel) -> None:
        self._channel = channel
        self._loop = Loop()
        self._dnsmasq: Dnsmasq | None = None
        self._losses = Losses(Budget())
        self._restart_at = float("inf")
        self._settings: Settings | None = None
        self._in_user_namespace = False
        self._done = False

    def run(self) -> None:
        """Serve until the channel ends."""
        self._channel.watch(self._loop, self._receive)
        try:
            while not self._done:
                now = time.monotonic()
                if now >= self._restart_at:
                    self._restart_dnsmasq()
                self._loop.turn(min(self._restart_at - now, IDLE_S))
        except ChannelClosedError:
            pass
        finally:
            if self._dnsmasq is not None:
                self._dnsmasq.close()

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
        if message.name == "socket":
            self._give_socket(message.arguments)
            return
        try:
            if message.name == "make":
                self._make(message.arguments)
            elif message.name == "zones":
                self._change_zones(zones(message.arguments))
            self._channel.send(Reply(True, None))
        except LocalError as error:
            self._channel.send(Reply(False, str(error)))

    def _make(self, arguments: Mapping[str, object]) -> None:
        settings = self._settings = read(cast(Mapping[str, object], arguments["settings"]))
        self._in_user_namespace = arguments["in_user_namespace"] is True
        try:
            tap, _ = _core.tap_open(netlink.LAN)
        except OSError as error:
            raise LocalError(
                f"cannot make the gateway's TAP: {error.strerror}; load the tun module, and give this user "
                "read and write access to /dev/net/tun"
            ) from None
        made = [tap]
        listeners: dict[str, socket.socket] = {}
        try:
            tun = open_tun(netlink.OUT)
            made.append(tun)
            netlink.set_up(settings)
            nft.load(nft.rules(settings, netlink.LAN))
            listeners = _listen()
            self._start_dnsmasq()
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

    def _give_socket(self, arguments: Mapping[str, object]) -> None:
        number = arguments["number"]
        try:
            with socket.socket(*KINDS[str(arguments["kind"])]) as made:
                made.setblocking(False)
                self._channel.send(Handover("socket", {"number": number}, 1), (made.fileno(),))
        except OSError as error:
            self._channel.send(Command("no_socket", {"number": number, "why": error.strerror}))

    def _change_zones(self, wanted: tuple[Zone, ...]) -> None:
        """Put other zones into force. Raises LocalError, and those of before are in force again soon."""
        assert self._settings is not None
        before = self._settings
        self._settings = before._replace(zones=wanted)
        try:
            self._start_dnsmasq()
        except LocalError:
            self._settings = before
            self._restart_at = time.monotonic()
            raise

    def _restart_dnsmasq(self) -> None:
        try:
            self._start_dnsmasq()
        except LocalError as error:
            self._dnsmasq_lost(str(error))

    def _start_dnsmasq(self) -> None:
        """Start it, or start it again with the present settings. Raises LocalError if it does not answer."""
        assert self._settings is not None
        self._restart_at = float("inf")
        if self._dnsmasq is not None:
            self._forget_dnsmasq().close()
        text = configuration(self._settings, netlink.LAN, in_user_namespace=self._in_user_namespace)
        made = self._dnsmasq = Dnsmasq(text)
        deadline = time.monotonic() + DNSMASQ_S
        while not _serves(str(self._settings.policy.gateway4)):
            if made.ended() or time.monotonic() > deadline:
                why = made.last_words() if made.ended() else f"it has not answered for {DNSMASQ_S:g} s"
                self._dnsmasq = None
                made.close()
                raise LocalError(f"dnsmasq did not start: {why}")
            time.sleep(0.002)
        self._loop.watch(made.pidfd, lambda _: self._dnsmasq_ended(made))
        self._loop.watch(made.stderr, lambda _: self._dnsmasq_says(made))

    def _dnsmasq_says(self, process: Dnsmasq) -> None:
        if process is self._dnsmasq and not process.listen():
            self._loop.unwatch(process.stderr)

    def _dnsmasq_ended(self, process: Dnsmasq) -> None:
        if process is not self._dnsmasq or not process.ended():
            return
        why = process.last_words()
        self._forget_dnsmasq().close()
        self._dnsmasq_lost(why)

    def _dnsmasq_lost(self, why: str) -> None:
        due = self._losses.lost(time.monotonic())
        if due is None:
            self._channel.send(Command("failed", {"why": f"dnsmasq ends again and again: {why}"}))
            self._done = True
        else:
            self._channel.send(Command("log", {"level": "warning", "text": f"dnsmasq ended: {why}"}))
            self._restart_at = due

    def _forget_dnsmasq(self) -> Dnsmasq:
        process, self._dnsmasq = self._dnsmasq, None
        assert process is not None
        self._loop.unwatch(process.pidfd)
        self._loop.unwatch(process.stderr)
        return process


def _listen() -> dict[str, socket.socket]:
    """Return the sockets of the host side by name: what guests connect to, and dnsmasq asks."""
    tcp4, tcp6 = socket.socket(*KINDS["tcp4"]), socket.socket(*KINDS["tcp6"])
    tcp4.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
    tcp4.bind(("127.0.0.1", TCP_PORT))
    tcp6.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    tcp6.bind(("::1", TCP_PORT))
    dns_udp, dns_tcp = socket.socket(*KINDS["udp4"]), socket.socket(*KINDS["tcp4"])
    dns_udp.bind(UPSTREAM)
    dns_tcp.bind(UPSTREAM)
    for sock in (tcp4, tcp6, dns_tcp):
        forgo_pacing(sock)
        sock.listen(BACKLOG)
    made = {"tcp4": tcp4, "tcp6": tcp6, "dns-udp": dns_udp, "dns-tcp": dns_tcp}
    for sock in made.values():
        sock.setblocking(False)
    return made


def _serves(address: str) -> bool:
    """Whether somebody in this namespace has port 53 of ``address``."""
    wanted = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:0035"
    return any(line.split()[1] == wanted for line in Path("/proc/net/udp").read_text().splitlines()[1:])


def main() -> None:
    """Run with the channel whose descriptor is the only argument."""
    channel = LoopChannel(socket.socket(fileno=int(sys.argv[1])))
    with suppress(KeyboardInterrupt, BulkheadError):
        Inside(channel).run()

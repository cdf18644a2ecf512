"""Datagrams of guests on their way out, and the answers: UDP and ICMP echo by way of the TUN device.

A guest's address and port is one flow, with a socket of the host that keeps its own port for as long as the
flow lives: wherever the guest sends from there, it is seen to come from one place (endpoint-independent
mapping, RFC 4787, which lets peers behind two gateways meet). Answers come only from addresses that the flow
has sent to; the guest sees them come from the address it asked for, so the host alias answers as itself.

ICMP echo goes through *ping sockets* (``net.ipv4.ping_group_range``), which need no privilege: the kernel
puts its own identifier into the request and matches the reply; the guest's is put back here. Where the host
does not allow them, the counter ``no_ping_socket`` says so, and nothing else changes.

**Why this and not pasta**, which could be joined to the namespace and do the same: forwards change while the
gateway runs and pasta's are fixed when it starts; the deny list and the host alias would have to be said
again in another tool's terms; its flow table is one for all guests, where one that scans pushes out the
flows of others; and a second relay is a second process to watch and mend. What it costs, measured in two runs
on two shared cores (a namespace to the host's loopback, 1400 bytes): pasta 44 us for a round trip and 50,000
datagrams a second in one direction, this 105 us and 27,000, of 16 us each two thirds in the kernel. Names,
time, pings and calls need a hundredth of that; streams of bytes are TCP, and go by splice.

Nothing waits: a datagram that a socket does not take is dropped and counted, as networks do.
"""

import os
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from ipaddress import ip_address

from gateway.relay.flow_context import BURST, Common
from gateway.relay.packets import (
    LONGEST,
    Datagram,
    Echo,
    build,
    echo_reply,
    echo_request,
    longest_payload,
    parse,
)
from gateway.relay.policy import Address
from gateway.relay.poller import READ, Poller

MOST_PEERS = 256
"""Addresses that a flow may have answers from; the first is forgotten for one more."""

_PING = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

Judge = Callable[[Address], tuple[Address | None, str]]
FlowKey = tuple[object, ...]


class GuestFlow:
    """One guest's address and port (or echo identifier), and the socket that stands for it on the host."""

    __slots__ = ("_poller", "ident", "key", "peers", "sock", "source")

    def __init__(self, poller: Poller, key: FlowKey, sock: socket.socket, source: bytes, ident: int) -> None:
        self._poller = poller
        self.key = key
        self.sock = sock
        self.source = source
        self.ident = ident
        self.peers: dict[str, bytes] = {}

    def close(self) -> None:
        """End the flow."""
        self._poller.unwatch(self.sock.fileno())
        self.sock.close()


class Outward:
    """The TUN device and the flows through it."""

    def __init__(self, common: Common, tun: int, judge: Judge, is_guest: Callable[[Address], bool]) -> None:
        """Take over the descriptor ``tun``.

        ``judge`` says where a guest gets that asks for an address, ``is_guest`` whose packets are a guest's.
        """
        self._poller, self._flows, self._counters, self._clock = common
        self._common = common
        self._tun = tun
        self._ident = 0
        self._is_guest = lru_cache(maxsize=4096)(lambda source: is_guest(ip_address(source)))
        self._where = lru_cache(maxsize=4096)(lambda asked: _text(judge(ip_address(asked))))
        self._poller.watch(tun, self._tun_event, READ)

    def forget_verdicts(self) -> None:
        """Ask ``judge`` anew: the host's own addresses may have changed."""
        self._where.cache_clear()

    def close(self) -> None:
        """Close the device; the flows are the table's."""
        self._poller.unwatch(self._tun)
        os.close(self._tun)

    def _tun_event(self, _: int) -> None:
        now = self._clock()
        for _ in range(BURST):
            try:
                data = os.read(self._tun, LONGEST)
            except OSError:  # nothing more, or the device is gone: the namespace's process says so
                return
            packet = parse(data)
            if packet is None:
                self._counters["not_carried"] += 1
            else:
                self._send(packet, now)

    def _send(self, packet: Datagram | Echo, now: float) -> None:
        if not self._is_guest(packet.source):
            self._counters["spoofed"] += 1
            return
        target, refused = self._where(packet.destination)
        if target is None:
            self._counters[refused] += 1
            return
        version = 4 if len(packet.source) == 4 else 6
        if isinstance(packet, Datagram):
            key: FlowKey = (Datagram, packet.source, packet.source_port)
            data, port = packet.payload, packet.port
        else:
            key = (Echo, packet.source, packet.ident)
            data, port = echo_request(version, packet.sequence, packet.payload), 0
        flow: GuestFlow | None = self._flows.sent(key, now) or self._new_flow(key, packet, version, now)
        if flow is None:
            return
        if flow.peers.get(target) != packet.destination:
            if len(flow.peers) >= MOST_PEERS:
                del flow.peers[next(iter(flow.peers))]
            flow.peers[target] = packet.destination
        try:
            flow.sock.sendto(data, (target, port))
        except OSError:
            self._counters["datagrams_dropped"] += 1

    def _new_flow(self, key: FlowKey, packet: Datagram | Echo, version: int, now: float) -> GuestFlow | None:
        is_echo = isinstance(packet, Echo)
        try:
            sock = socket.socket(_FAMILY[version], socket.SOCK_DGRAM, _PING[version] if is_echo else 0)
        except PermissionError:
            self._counters["no_ping_socket"] += 1
            return None
        except OSError:
            self._counters["no_descriptor"] += 1
            return None
        sock.setblocking(False)
        ident = packet.ident if isinstance(packet, Echo) else packet.source_port
        flow = GuestFlow(self._poller, key, sock, packet.source, ident)
        self._common.enter(key, packet.source, flow, now)
        self._poller.watch(sock.fileno(), partial(self._answers, flow), READ)
        return flow

    def _answers(self, flow: GuestFlow, _: int) -> None:
        version = 4 if len(flow.source) == 4 else 6
        answered = False
        for _ in range(BURST):
            try:
                data, peer = flow.sock.recvfrom(LONGEST)
            except OSError:
                break
            asked = flow.peers.get(peer[0])
            if asked is None or len(data) > longest_payload(version):
                self._counters["unasked"] += 1
                continue
            answered = True
            if flow.key[0] is Datagram:
                self._write(Datagram(asked, flow.source, peer[1], flow.ident, data))
            elif (reply := echo_reply(version, data)) is not None:
                self._write(Echo(asked, flow.source, flow.ident, *reply))
        if answered:
            self._flows.answered(flow.key, self._clock())

    def _write(self, packet: Datagram | Echo) -> None:
        self._ident += 1
        try:
            os.writev(self._tun, build(packet, self._ident))
        except OSError:
            self._counters["datagrams_dropped"] += 1


def _text(verdict: tuple[Address | None, str]) -> tuple[str | None, str]:
    """Return a verdict with the address as sockets have it."""
    target, refused = verdict
    return (None if target is None else str(target)), refused

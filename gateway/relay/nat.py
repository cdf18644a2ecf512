"""NAT for guests' datagrams to the outside and their answers: UDP, ICMP echo, and ICMP errors both ways.

A guest's address and port is one flow, with a socket of the host that keeps its port while the flow lives.
All destinations see the same source (endpoint-independent mapping, RFC 4787, which lets peers behind two
gateways meet). Answers come only from addresses that the flow has sent to; the guest sees them come from the
address it asked for, so the host alias answers as itself.

A flow belongs to the Ethernet source of its datagrams, and so to its port: a guest that writes another's
address into its packets gets a flow of its own, and a guest that gets the address of one that has left gets
none of its answers. The gateway is a hop: it lowers the hop limit by one, and keeps the guest's
don't-fragment bit. Errors of routers and hosts are passed to the guest (``socket_errors``), quoting its own
datagram, so traceroute and path MTU discovery work.

ICMP echo goes through *ping sockets* (``net.ipv4.ping_group_range``), which need no privilege: the kernel
puts its own identifier into the request and matches the reply; here the guest's identifier is restored.

**Why this and not pasta**, which could be joined to the namespace and do the same: forwards change while the
gateway runs and pasta's are fixed when it starts; the deny list and the host alias would have to be said
again in another tool's terms; its one flow table is shared by all guests, so a guest that scans pushes out
the flows of others; and a second relay is a second process to watch and repair.

Errors are what a flood to a closed port costs: each wakes the relay, two workers and the guest. So a port is
told of as many as a router would send (``ERRORS``); then its flow hears none until its next datagram is
judged, within ten seconds.

No datagram waits: if a socket does not accept it, it is dropped and counted, as in any network.

The first datagrams of a flow are judged here. The second one enters its way in the core
(``forwarder._core.Datagrams``), which carries the following ones in batches, in both directions. This module
gets all datagrams that have no way there: other addresses, echoes, errors, and answers that need
fragmentation.
"""

import errno
import socket
from collections.abc import Callable, Hashable
from functools import partial
from ipaddress import ip_address

from forwarder.tcp_options import take_segments
from gateway.ip.answers import (
    again,
    answer,
    echo_reply,
    echo_request,
    fits,
    quoted,
)
from gateway.ip.packets import ECHO, Datagram, Echo, Packet, Refusal, read
from gateway.poller import FAILED, READ
from gateway.rates import Rates
from gateway.relay import socket_errors
from gateway.relay.flow_context import BATCH, BURST, Common
from gateway.relay.frames import Sender
from gateway.relay.guest_flow import PING, UDP, GuestFlow, GuestKey
from gateway.relay.policy import Address
from gateway.relay.socket_errors import SocketError
from gateway.relay.tun import Speaker

MOST_PEERS = 256
"""Addresses that may answer a flow; beyond that the oldest is forgotten."""

ERRORS = (100.0, 300, 0)
"""Errors that a port is told of: per second, in a burst, and none that wait (RFC 1812 4.3.2.8)."""

_PING = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

NO_PINGS = (
    "this host lets the gateway send no pings, so those of VMs to the outside are refused; allow them with "
    "sysctl net.ipv4.ping_group_range='0 2147483647'"
)

Judge = Callable[[bytes], tuple[Address | None, str]]
"""Returns where a guest's request for an address (4 or 16 bytes) leads; or the counter of its refusal."""


class Nat:
    """The flows of guests."""

    def __init__(
        self,
        common: Common,
        speaker: Speaker,
        judge: Judge,
        owner_of: Callable[[bytes], Hashable | None],
        mtu: int,
    ) -> None:
        """``owner_of``: the ports, by MAC address; ``mtu`` is the LAN's."""
        self._common = common
        self._poller, self._flows, self._counts, self._clock, self._core = common
        self._speaker = speaker
        self._owner_of = owner_of
        self._mtu = mtu
        self._ident = 0
        self._judge = judge
        self._errors = Rates(*ERRORS)

    def send(self, packet: Datagram | Echo, way: Packet, sender: Sender, now: float) -> None:
        """Send a guest's datagram on; ``way`` has the IP header's fields."""
        address, refused = self._judge(packet.destination)
        if address is None:
            self._counts.refuse(refused, sender, ip_address(packet.destination))
            self._refuse(sender.mac, packet, socket_errors.PROHIBITED[way.version])
            return
        if way.hops <= 1:
            self._refuse(sender.mac, packet, (socket_errors.TIME_EXCEEDED[way.version], 0))
            return
        is_echo = isinstance(packet, Echo)
        ident = packet.ident if isinstance(packet, Echo) else packet.source_port
        key = (PING if is_echo else UDP, sender.mac, packet.source, ident)
        known: GuestFlow | None = self._flows.sent(key, now)
        flow = known or self._new_flow(key, packet, sender, now)
        if flow is None:
            return
        if not flow.hears_errors and not self._errors.is_spent(sender.owner, now):
            flow.hear_errors(hear=True)
        target = address.packed
        flow.peers.pop(target, None)  # the peer that has been asked for the longest time goes first
        if len(flow.peers) >= MOST_PEERS:
            del flow.peers[next(iter(flow.peers))]
        flow.peers[target] = packet.destination
        if flow.way != (way.hops, way.keep):
            flow.go(way.hops, keep=way.keep)
        if known is not None and isinstance(packet, Datagram):
            fd = flow.sock.fileno()
            source, port = packet.source, packet.source_port
            self._core.from_guest(
                sender.mac, source, packet.destination, port, way.hops, way.keep, fd, target
            )
        self._send(flow, packet, str(address))

    def arrived(self, packet: Packet) -> None:
        """Answer a reassembled echo to the gateway itself; hand any other packet to the namespace's kernel.

        The kernel would send the reply of IPv6 to where the request has come in, which is the TUN device.
        Raises DamagedError.
        """
        carried = read(packet, summed=True)
        if isinstance(carried, Echo):
            self._write(carried._replace(source=packet.destination, destination=packet.source))
        else:
            self._speaker.write(again(packet))

    def refused(self, refusal_: Refusal, sender: Sender) -> None:
        """Take a guest's port unreachable about an answer: end the flow, so the host refuses later ones."""
        datagram = refusal_.quoted
        if datagram.destination == refusal_.source and refusal_.code in (3, 4):
            self._counts["errors_passed"] += 1
            self._flows.end((UDP, sender.mac, refusal_.source, datagram.port))

    def left(self, port: Hashable) -> None:
        """Note that a port has left: nothing is delivered while no port has the Ethernet address."""
        for _, flow in self._flows.of(port):
            flow.has_left = True
            flow.forget_ways()

    def end_flows(self, port: Hashable) -> None:
        """End the flows of a port that has left, unless their Ethernet address is behind another one now."""
        self._errors.forget(port)
        for key, flow in self._flows.of(port):
            if not self._is_back(flow):
                self._flows.end(key)

    def _is_back(self, flow: GuestFlow) -> bool:
        """Whether a port has the Ethernet address of a flow again; that port has the flow then."""
        owner = self._owner_of(flow.mac)
        if owner is None or not self._flows.move(flow.key, owner, self._clock()):
            return False
        flow.has_left = False
        return True

    def _send(self, flow: GuestFlow, packet: Datagram | Echo, target: str) -> None:
        if isinstance(packet, Echo):
            data: bytes | memoryview = echo_request(flow.version, packet.sequence, packet.payload)
            port = 0
        else:
            data, port = packet.payload, packet.port
        try:
            flow.sock.sendto(data, (target, port))
            return
        except OSError as failure:
            error = failure
        # It may be about an earlier datagram, and then this one was not sent.
        if self._take_errors(flow, packet) and error.errno != errno.EMSGSIZE:
            try:
                flow.sock.sendto(data, (target, port))
                return
            except OSError as failure:
                error = failure
        number = socket_errors.or_no_way(error.errno or 0, ip_address(target))
        said = socket_errors.as_icmp(number, flow.version)
        if said is not None:
            self._refuse(flow.mac, packet, said)
        elif error.errno != errno.EMSGSIZE:
            self._counts["datagrams_dropped"] += 1

    def _new_flow(
        self, key: GuestKey, packet: Datagram | Echo, sender: Sender, now: float
    ) -> GuestFlow | None:
        version = 4 if len(packet.source) == 4 else 6
        is_echo = isinstance(packet, Echo)
        try:
            sock = socket.socket(_FAMILY[version], socket.SOCK_DGRAM, _PING[version] if is_echo else 0)
        except PermissionError:
            self._counts.refuse("no_ping_socket", sender, "net.ipv4.ping_group_range")
            return None
        except OSError as error:
            self._counts.refuse("no_descriptor", sender, error.strerror)
            return None
        sock.setblocking(False)
        socket_errors.watch(sock)
        if not is_echo:
            take_segments(sock)
        flow = GuestFlow(self._common, key, sock)
        if not self._flows.enter(key, sender.owner, flow, now):
            return None
        self._poller.watch(sock.fileno(), partial(self._event, flow), READ)
        return flow

    def _event(self, flow: GuestFlow, events: int) -> None:
        if events & FAILED:
            self._take_errors(flow)
        self._answers(flow)

    def _answers(self, flow: GuestFlow) -> None:
        answered = False
        for _ in range(BURST):
            try:
                count, carried, left = self._core.read(flow.sock.fileno(), False)
            except BlockingIOError:
                break
            except OSError:  # an error, which is read from the error queue
                continue
            answered |= bool(carried)
            for data, peer, port, *_, cut in left:
                answered |= self._answer(flow, data, (peer, port), cut)
            if count < BATCH:
                break
        if answered:
            self._flows.answered(flow.key, self._clock())

    def _answer(self, flow: GuestFlow, data: bytes, peer: tuple[bytes, int], cut: int) -> bool:
        """Pass on an answer if the guest has asked this peer; ``cut`` is for ``pieces``."""
        asked = flow.peers.get(peer[0])
        if asked is None:
            self._counts["unasked"] += 1
            return False
        if flow.has_left and not self._is_back(flow):
            self._counts["datagrams_dropped"] += 1
            return False
        if not flow.is_echo:
            self._core.to_guest(flow.sock.fileno(), peer[0], asked, flow.source, flow.ident)
            for piece in pieces(data, cut):
                self._write(Datagram(asked, flow.source, peer[1], flow.ident, piece))
        elif (reply := echo_reply(flow.version, data)) is not None:
            self._write(Echo(asked, flow.source, flow.ident, *reply))
        return True

    def _take_errors(self, flow: GuestFlow, sent: Datagram | Echo | None = None) -> bool:
        """Pass on the errors of the socket; return whether there was one. The newest datagram is ``sent``."""
        told = False
        for _ in range(BURST):
            try:
                error = socket_errors.take(flow.sock)
            except OSError:
                break
            told = True
            if flow.has_left and not self._is_back(flow):
                self._counts["datagrams_dropped"] += 1
                continue
            asked = flow.peers.get(ip_address(error.peer).packed) if error is not None else None
            if error is None or asked is None:
                continue
            if not self._may_tell(flow.mac):
                flow.hear_errors(hear=False)
                break
            is_about_sent = error.is_local and sent is not None and sent.destination == asked
            about = sent if is_about_sent else None
            self._pass_on(flow, error, about or _about(flow, asked, error))
        return told

    def _pass_on(self, flow: GuestFlow, error: SocketError, packet: Datagram | Echo) -> None:
        """Send an ICMP error to a guest, with the address of its original sender as source."""
        source = None
        if error.offender:
            address = ip_address(error.offender)
            source = flow.peers.get(address.packed, None if address.is_loopback else address.packed)
        self._counts["errors_passed"] += 1
        self._speaker.refuse(flow.source, error.kind_and_code, quoted(packet), error.info, source)

    def _may_tell(self, mac: bytes) -> bool:
        """Count one more error of a port; return whether its guest may be told of it."""
        return self._errors.take(self._owner_of(mac), self._clock()) is not None

    def _refuse(self, mac: bytes, packet: Datagram | Echo, kind_and_code: tuple[int, int]) -> None:
        if not self._may_tell(mac):
            return
        self._counts["errors_passed"] += 1
        self._speaker.refuse(packet.source, kind_and_code, quoted(packet))

    def _write(self, packet: Datagram | Echo) -> None:
        if not fits(packet):
            self._counts["datagrams_dropped"] += 1
            return
        self._ident += 1
        for each in answer(packet, self._ident, self._mtu):
            self._speaker.write(each)


def _about(flow: GuestFlow, asked: bytes, error: SocketError) -> Datagram | Echo:
    """Return the datagram that an error is about, as far as the error quotes it."""
    if not flow.is_echo:
        return Datagram(flow.source, asked, flow.ident, error.port, error.data)
    sequence = ECHO.unpack_from(error.data)[4] if len(error.data) >= ECHO.size else 0
    return Echo(flow.source, asked, flow.ident, sequence, error.data[ECHO.size :])


def pieces(data: bytes, cut: int) -> list[bytes]:
    """Split datagrams that a socket gave as one; each but the last has ``cut`` bytes."""
    if not cut:
        return [data]
    return [data[begin : begin + cut] for begin in range(0, len(data), cut)]


def may_ping() -> bool:
    """Whether this process may send pings (``net.ipv4.ping_group_range``, for both IP versions)."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, _PING[4]).close()
    except OSError:
        return False
    return True

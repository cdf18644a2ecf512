"""The services that the gateway itself gives to guests: addresses, names and router advertisements.

The relay carries traffic to others; this part answers guests itself. It has its own poller, so a burst of
questions takes turns with the relay's connections.
"""

import heapq
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import cast

from forwarder.acceptor import Acceptor, Pauses
from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.messages import Reply
from forwarder.names import format_mac, parse_mac
from forwarder.socket_address import Servers
from gateway.api.names import Zone
from gateway.lan.announce import Announcer
from gateway.lan.filters import DHCP_PORT, DNS_PORT
from gateway.lan.frames import Datagram, Opening, Solicitation, Trial
from gateway.lan.routes import RouteTable
from gateway.lan.station import Station
from gateway.leases import dhcp
from gateway.leases.held import Held, Question
from gateway.leases.journal import Journal
from gateway.leases.lease import Lease, LeaseState
from gateway.leases.news import News, Record
from gateway.leases.server import Server
from gateway.leases.table import Leases
from gateway.names.answers import Names
from gateway.names.guests import Guests
from gateway.names.service import NameService
from gateway.names.streams import Streams
from gateway.names.upstream import Upstream
from gateway.poller import Poller
from gateway.ports import Port, Ports
from gateway.rates import Rates
from gateway.relay.counts import Counts
from gateway.settings import Settings, lease_range

DHCP_RATE = (200.0, 200, 64)
"""DHCP messages of one port: per second, in a burst, and waiting. A VM may have many guests of its own. The
port's worker drops what is far beyond that (``asking.h``)."""

DNS_RATE = (1000.0, 250, 64)
"""DNS questions of one port: per second, in a burst, and waiting. At most they take a sixth of this process's
time. The port's worker drops what is far beyond that."""

SOLICITATION_RATE = (2.0, 20, 0)
OPENING_RATE = (50.0, 100, 0)

LOOK_S = 1.0
"""Time between two reads of the kernel's drop counters, which each wake the process in the namespace."""

SAVE_S = 1.0
"""Time between two tries to save the leases on a full disk."""

PAGE = 256
"""Leases in one answer: a message has room for a few more."""

Row = dict[str, object]


class Provisions:
    """Leases, names and announcements of one gateway. Call ``tick`` when ``deadline`` says so."""

    def __init__(
        self,
        loop: Loop,
        sockets: dict[str, socket.socket],
        settings: Settings,
        ports: Ports,
        log: Callable[[str, str], None],
        *,
        lease_news: Callable[[Record], object],
        flooded: Callable[[], Future[Reply]],
        resolvers: Callable[[], Servers],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over ``sockets``: packet sockets "leases", "lan4" and "lan6", listeners "dns4" and "dns6".

        ``lease_news`` takes what becomes of leases. ``flooded`` asks how many frames the kernel has dropped
        before they were heard; ``resolvers`` says which servers are to be asked now. All files are opened
        here: later they cannot be.
        """
        self._flooded = flooded
        self._look = 0.0
        self._loop = loop
        self._log = log
        self._clock = clock
        self.counters = Counts(clock, log)
        self._poller = Poller(loop.failed)
        self._pauses = Pauses(clock)
        self._journal = Journal(settings.lease_file)
        self._save_at = 0.0
        """When to write the leases again, after a failure."""
        self._tell_failure("")
        self._leases = self._remembered(settings, ports)
        self._leases.is_used = ports.seen.is_used
        packets = [sockets["leases"], sockets["lan4"], sockets["lan6"]]
        self._station = Station(self._poller, packets, ports, settings.mtu, self.counters, clock=clock)
        fixed = {lease.name: lease.address for lease in settings.leases if lease.name}
        prefix = settings.policy.prefix.network_address.packed[:8]
        guests = Guests(self._leases, fixed, ports, prefix)
        self._names = Names(settings.policy, settings.records, guests.addresses, guests.name)
        self._names.change_zones(settings.zones)
        self._news = News(lease_news, clock)
        self._server = Server(settings, self._leases, self._names.is_configured, self.counters, self._news)
        self._held = Held()
        self._upstream = Upstream(self._poller, resolvers, self.counters, clock)
        questions = Rates(*DNS_RATE)
        self._streams = Streams(self._poller, self._ask_by_stream, questions, self.counters, clock=clock)
        self._service = NameService(self._station, self._names, self._upstream, self._streams, self.counters)
        self._routes = RouteTable()
        self._announcer = Announcer(settings, self._routes.has_way_out, self._station.send)
        self._acceptors = [
            (sock, Acceptor(self._poller, sock, self._service.accepted, self._pauses))
            for sock in (sockets["dns4"], sockets["dns6"])
        ]
        ports.when_joined(lambda _: self._announcer.joined(self._clock()))
        ports.when_left(self._left)
        self._station.listen(
            {
                DHCP_PORT: (self._lease, Rates(*DHCP_RATE)),
                DNS_PORT: (self._service.heard, questions),
                Opening: (self._service.opening, Rates(*OPENING_RATE)),
                Solicitation: (
                    lambda heard, _, __: self._announcer.solicited(heard),
                    Rates(*SOLICITATION_RATE),
                ),
                Trial: (guests.tried, Rates(*SOLICITATION_RATE)),
            }
        )
        loop.watch(self._poller.fileno(), lambda _: self._poller.turn())

    def change_zones(self, zones: Iterable[Zone]) -> None:
        """Put these zones into force."""
        self._names.change_zones(zones)

    def leases(self, after: str) -> list[Row]:
        """Return the next ``PAGE`` leases above ``after``, in the order of addresses. Raises LocalError."""
        now = self._clock()
        self._leases.expire(now)
        try:
            floor = int(IPv4Address(after))
        except ValueError:
            raise LocalError(f"{after!r} is no IPv4 address") from None
        above = (each for each in self._leases if each.address > floor)
        return [_row(lease, now) for lease in heapq.nsmallest(PAGE, above, key=lambda each: each.address)]

    def in_use(self) -> dict[str, str]:
        """Return address to MAC of the leases in use."""
        self._leases.expire(self._clock())
        bound = [each for each in self._leases if each.state is LeaseState.BOUND]
        return {str(IPv4Address(each.address)): format_mac(each.mac) for each in bound}

    def owners(self) -> list[tuple[str, int, int]]:
        """Return the leases in use: address to number and attachment of the port."""
        self._leases.expire(self._clock())
        bound = [each for each in self._leases if each.state is LeaseState.BOUND]
        return [(str(IPv4Address(each.address)), *each.port) for each in bound]

    def figures(self) -> Counts:
        """Return the counters since the start; what the kernel has dropped may be a second old.

        The kernel is asked each time, since nothing else here shows what it has dropped.
        """
        self._station.count_lost()
        now = self._clock()
        if now >= self._look:
            self._look = now + LOOK_S
            self._flooded().add_done_callback(self._count_flooded)
        return self.counters

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._station.tick(now)
        for question in self._held.due(now):
            self._answer(question, now)
        self._upstream.tick(now)
        self._streams.tick(now)
        self._pauses.tick(now)
        self._announcer.tick(now)
        if self._journal.may_recover and now >= self._save_at:
            self._save_at = now + SAVE_S
            self._journal.write_again(self._leases)
            if not self._journal.failed:
                self._log("info", "leases are saved again")

    def _count_flooded(self, reply: Reply) -> None:
        if reply.ok:
            self.counters["flooded"] = cast(int, reply.result)

    def deadline(self) -> float:
        """When to call ``tick``, in monotonic seconds."""
        parts = (self._station, self._upstream, self._streams, self._pauses)
        ends = [end for part in parts if (end := part.deadline()) is not None]
        save_at = self._save_at if self._journal.may_recover else float("inf")
        return min([self._announcer.deadline(), self._held.deadline(), save_at, *ends])

    def close(self) -> None:
        """Close everything."""
        for sock, acceptor in self._acceptors:
            acceptor.close()
            sock.close()
        self._streams.close()
        self._upstream.close()
        self._station.close()
        self._journal.close()
        self._routes.close()
        self._loop.unwatch(self._poller.fileno())
        self._poller.close()

    def _remembered(self, settings: Settings, ports: Ports) -> Leases:
        """Return the table of leases, filled from the journal of an earlier gateway."""
        now = self._clock()
        first, last = lease_range(settings.policy.subnet)
        fixed = {parse_mac(lease.mac): int(lease.address) for lease in settings.leases}
        leases = Leases(int(first), int(last), fixed)
        for lease, state, ends in self._journal.load(now):
            is_there = state is LeaseState.BOUND and lease.port in ports
            leases.restore(lease, LeaseState.BOUND if is_there else LeaseState.KEPT, ends)
        leases.changed = self._note
        return leases

    def _note(self, lease: Lease) -> None:
        before = self._journal.failed
        self._journal.note(lease, self._leases, len(self._leases))
        self._tell_failure(before)

    def _tell_failure(self, before: str) -> None:
        if self._journal.failed and not before:
            self._log("warning", f"leases are not saved: {self._journal.failed}")

    def _lease(self, heard: Datagram, port: Port, now: float) -> None:
        old = self._leases.port_before(heard.mac, port)
        question = Question(heard, port)
        if old is None or not self._held.hold(question, old, now):
            self._answer(question, now)

    def _answer(self, question: Question, now: float) -> None:
        heard = question.heard
        answer = self._server.answer(heard.payload, heard.mac, question.port, now)
        if answer is not None:
            source = self._server.own.packed
            ports = (dhcp.SERVER_PORT, dhcp.CLIENT_PORT)
            self._station.answer(Datagram(heard.mac, source, answer.to.packed, *ports, answer.payload))

    def _ask_by_stream(self, data: bytes, port: Port, reply: Callable[[bytes], None]) -> None:
        self._service.asked_by_stream(data, port, reply)

    def _left(self, port: Port) -> None:
        now = self._clock()
        self._leases.left(port, now)
        for question in self._held.left(port):
            self._answer(question, now)
        self._news.forget(port)
        self._streams.forget(port)  # before its questions: an open connection would ask the next ones
        self._upstream.forget(port)


def _row(lease: Lease, now: float) -> Row:
    return {
        "address": str(IPv4Address(lease.address)),
        "mac": format_mac(lease.mac),
        "port": lease.port.number,
        "born": lease.port.born,
        "name": lease.name,
        "state": lease.state.value,
        "expires_s": round(lease.ends - now, 1) if lease.state is not LeaseState.KEPT else None,
    }

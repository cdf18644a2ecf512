"""One gateway: puts its parts together and runs their loop.

Theory of operation
-------------------
One process, one thread. The supervisor starts it with a channel and says ``serve``; it makes the namespace
(``holder``), enters its cell, starts to relay (``relay``), passes the TAP on and answers when guests can be
served. From then on the supervisor asks and it answers, in order. What goes wrong before that is the answer,
one line that names cause and remedy; what goes wrong later ends the process, and the supervisor starts
another one under its restart budget.

Guests' packets are read here, so no guest is near before the process is in its cell (``forwarder.cell``):
from then on it opens no file, starts no program and listens nowhere. What it needs of that kind it asks of
the supervisor: listeners (``listeners``), and the host's resolvers, which it is told when they change.

Forwards and zones change while the gateway runs. After each change the gateway sends all of them to the
supervisor, so that the next gateway begins with them. The gateway also asks the supervisor, for its HTTP API;
each question gets one answer, in order. The supervisor tells it which ports come and go (``ports``).

The gateway ends when its channel ends: a supervisor could not repair a gateway that it cannot reach.
"""

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from forwarder import cell
from forwarder.channel import ChannelClosedError
from forwarder.counted import in_order
from forwarder.errors import LocalError, PeerError
from forwarder.future import Future, gather
from forwarder.loop import Loop, failure
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Command, Handover, Message, Reply
from forwarder.names import GATEWAY_MAC, format_mac
from forwarder.socket_address import Servers
from gateway import answers, overlap
from gateway.answers import Answers
from gateway.api import CONNECTIONS
from gateway.api.carry_over import By, Memory
from gateway.api.names import Zone
from gateway.api.zones import Zones
from gateway.commands import Commands
from gateway.host_forwards import Added, HostForwards
from gateway.listeners import Listener, Listeners, Outcome
from gateway.namespace import Holder
from gateway.namespace_process import NamespaceProcess
from gateway.ports import Port, Ports
from gateway.provisions import Provisions, Row
from gateway.relay.forwards import Forward
from gateway.relay.frames import Way
from gateway.relay.policy import Address, OutboundPolicy, told
from gateway.relay.relay import Relay
from gateway.settings import Settings, read

if TYPE_CHECKING:
    from gateway.api.http_server import HttpServer

IDLE_S = 3600.0

LOOK_S = 0.001
"""Time between two looks for due work while the loop is busy: a look costs as much as an event."""

ONCE = ("ssh-port", "kept-forward")
"""Options that become forwards when the gateway starts to serve."""

MOST_OWNERS = 1500
"""Leases in one message to the supervisor: more than one for each possible port."""

QUESTIONS = CONNECTIONS
"""Unanswered questions to the supervisor, at most: one for each client of the API."""


class Gateway:
    """One gateway, from construction to the end of ``run``."""

    def __init__(self, channel: LoopChannel, namespace: NamespaceProcess) -> None:
        """``namespace``: the process in the namespace, which has just been started."""
        self._channel = channel
        self._loop = Loop(self._failed)
        refused = partial(self._refused, "namespace")
        self._holder = Holder(self._loop, namespace, self._lost, self._log, refused)
        self._relay: Relay | None = None
        self._forwards: HostForwards | None = None
        self._policy: OutboundPolicy | None = None
        self._provisions: Provisions | None = None
        self._ports = Ports()
        self._ports.catch_up = self._receive
        self._listeners = Listeners(channel.send)
        self._resolvers = Servers(())
        """The host's, as the supervisor said last."""
        self._refusals = cell.Refusals()
        self._pending_replies: deque[Future[Reply]] = deque()
        self._answers = Answers(channel.send)
        self._commands = Commands(self)
        self._make_api: Callable[[Listener], HttpServer] | None = None
        self._http: HttpServer | None = None
        self._done = False
        self._due = self._look = 0.0
        self._own_addresses: tuple[str, ...] = ()
        self._told_owners: dict[str, object] = {}

    def run(self, woken: socket.socket) -> None:
        """Serve until the channel, or the namespace, ends; a byte at ``woken``, of a signal, ends a sleep."""
        self._loop.watch(woken.fileno(), lambda _: self._end())
        self._channel.watch(self._loop, self._receive)
        try:
            while not self._done:
                self._turn()
        except ChannelClosedError:
            pass
        except Exception:
            self._failed()
        finally:
            self._holder.close()
            for part in (self._http, self._relay, self._provisions):
                if part is not None:
                    with suppress(ChannelClosedError):  # the supervisor is told of each listener
                        part.close()
            self._channel.close()

    def _end(self) -> None:
        self._done = True

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= min(self._due, self._look) or (self._relay is not None and self._relay.busy):
            self._due, self._look = self._tick(now), now + LOOK_S
            self._tell_refusals()
            self._loop.turn(self._due - now)
        else:  # an event since the last look may have brought a deadline of its own
            self._loop.turn(min(self._due, self._look) - now)

    def _tick(self, now: float) -> float:
        """Do what is due; return when something is the next time."""
        due = now + IDLE_S
        for part in (self._relay, self._provisions, self._http):
            deadline = None if part is None else part.deadline()
            if part is not None and deadline is not None:
                if deadline <= now:
                    part.tick(now)
                due = min(due, deadline)
        return due

    def _receive(self) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                self._on_message(*received)
        except ChannelClosedError:
            self._done = True
        except Exception:
            self._done = True  # a gateway that its supervisor cannot reach is of no use
            raise

    def _on_message(self, message: Message, descriptors: tuple[int, ...]) -> None:
        match message:
            case Reply() if self._pending_replies:
                self._pending_replies.popleft().set_result(message)
            case Handover("listener", {"number": int(number), "port": int(port)}):
                self._listeners.made(number, port, descriptors[0])
            case Command("no_listener", {"number": int(number), "why": str(why)}):
                self._listeners.refused(number, why)
            case Command("resolvers", {"servers": list(servers), "by_tcp": bool(by_tcp)}):
                self._resolvers = Servers(tuple(map(tuple, servers)), by_tcp)
            case Handover("block"):
                self._ports.map(descriptors[0])
            case Command("ports", {"ports": list(ports)}):
                self._ports.are(Port(number, born) for number, born in ports)
            case Command("joined", {"port": int(number), "born": int(born)}):
                self._ports.joined(Port(number, born))
            case Command("left", {"port": int(number), "born": int(born)}):
                self._ports.left(Port(number, born))
            case Command("in_use", {"ports": list(ports)}):
                for number, born, addresses in ports:
                    self._ports.use(Port(number, born), addresses)
            case Command():
                self._answers.add(answers.attempt(lambda: self._run(message)))
            case _:
                raise PeerError(f"a {type(message).__name__} is not for the gateway")

    def _run(self, command: Command) -> Future[Reply]:
        is_begin = command.name == "serve" and not self.serves
        return self._serve(command.arguments) if is_begin else self._commands.run(command)

    def _serve(self, plain: Mapping[str, object]) -> Future[Reply]:
        settings = read(plain)
        policy = self._policy = settings.policy
        overlap.check_host(policy.subnet)
        forwards = [Forward.parse(text) for text in settings.forwards]
        self._begin_to_remember(plain, settings)
        self._holder.start(plain)
        self._channel.send(Handover("namespace", {}, 1), (self._holder.pidfd,))
        self._begin_to_relay(settings)
        self._own_addresses = tuple(map(str, settings.own_addresses))
        self._reserved = {str(policy.gateway4): format_mac(GATEWAY_MAC)}
        self._reserved |= {str(lease.address): lease.mac for lease in settings.leases}
        self._cells = {"gateway": cell.plain(cell.enter("gateway")), "namespace": self._holder.cell}
        return self._open(settings, forwards).map(lambda error: self._served(error, policy))

    def _begin_to_relay(self, settings: Settings) -> None:
        """Begin with everything that opens files or starts processes."""
        relay = self._relay = Relay(self._loop, self._holder.make, settings.policy, log=self._log)
        sockets, self._holder.sockets = self._holder.sockets, {}
        tun, self._holder.tun = self._holder.tun, -1
        self._forwards = HostForwards(relay, self._listeners, self._memory, self._log)
        relay.serve([sockets.pop(name) for name in ("tcp4", "tcp6")])
        frames = [sockets.pop(name) for name in list(sockets) if name.startswith("frames")]
        relay.carry(Way(tun, frames, self._ports.of, self._neighbours, settings.mtu))
        if settings.services:
            self._prepare_api()
        self._ports.when_joined(relay.joined)
        self._ports.when_left(relay.left)
        flooded = partial(self._holder.ask, Command("flooded", {}))
        self._provisions = Provisions(
            self._loop,
            sockets,
            settings,
            self._ports,
            self._log,
            lease_news=lambda record: self._channel.send(Command("lease", record)),
            flooded=flooded,
            resolvers=lambda: Servers(settings.resolvers) if settings.resolvers else self._resolvers,
        )

    def _prepare_api(self) -> None:
        """Import the modules of the API: in its cell the process opens no file."""
        from gateway.api.http_server import HttpServer  # noqa: PLC0415 - 1.5 MiB
        from gateway.api.services import Services  # noqa: PLC0415

        self._make_api = lambda listener: HttpServer(self._loop, listener, Services(self).handle)

    def _open(self, settings: Settings, forwards: list[Forward]) -> Future[LocalError | None]:
        """Listen wherever the operator wants; the result is what cannot be had of it, if anything."""
        assert self._forwards is not None
        wanted: list[Future[Any]] = [self._forwards.begin(forward) for forward in forwards]
        if settings.services:
            wanted.append(self._listeners.at_path(settings.services).map(self._serve_api))
        known = {str(forward) for forward in forwards}
        kept = [self._forwards.begin_again(text) for text in settings.kept_forwards if text not in known]
        return gather([*wanted, *kept]).map(
            lambda results: next(
                (each for each in results[: len(wanted)] if isinstance(each, LocalError)), None
            )
        )

    def _served(self, error: LocalError | None, policy: OutboundPolicy) -> Reply:
        """Tell the supervisor that guests can be served, or why they cannot."""
        if error is not None:
            return answers.refusal(error)
        assert self._forwards is not None
        self._forwards.remember()
        self._channel.send(Handover("tap", {}, 1), (self._holder.tap,))
        os.close(self._holder.tap)
        self._holder.tap = -1
        self.tell_owners()
        where = {"subnet": str(policy.subnet), "prefix": str(policy.prefix), "cells": self._cells}
        return Reply(True, {**where, "forwards": self._forwards.texts(), "figures": self.figures()})

    def _serve_api(self, listener: Outcome) -> LocalError | None:
        if isinstance(listener, LocalError):
            return LocalError(f"services: {listener}")
        assert self._make_api is not None
        self._http = self._make_api(listener)
        return None

    def _begin_to_remember(self, plain: Mapping[str, object], settings: Settings) -> None:
        options = {key: value for key, value in plain.items() if key not in ONCE}
        memory = self._memory = Memory(options, self._channel.send)
        self._zones = Zones(
            settings.zones,
            lambda zones: memory.check("dns-zone", zones),
            self._zones_changed,
        )

    def _zones_changed(self, zones: tuple[Zone, ...], by: By) -> None:
        assert self._provisions is not None
        self._provisions.change_zones(zones)
        self._memory.change("dns-zone", zones, by)

    # For operators and for the API.

    def forwards(self) -> list[Forward]:
        """Return all forwards."""
        assert self._forwards is not None
        return self._forwards.all()

    def add_forward(self, forward: Forward, by: By) -> Future[Added]:
        """Begin to forward. Raises LocalError, like a result that is one: nothing has changed."""
        assert self._forwards is not None
        return self._forwards.add(forward, by)

    def remove_forward(self, forward: Forward, by: By) -> None:
        """End a forward. Raises LocalError if there is no such forward."""
        assert self._forwards is not None
        self._forwards.remove(forward, by)

    @property
    def serves(self) -> bool:
        """Whether the gateway has begun to serve."""
        return self._relay is not None

    def forward(self, text: str) -> Forward:
        """Return the forward that an operator means. Raises LocalError if there is none."""
        assert self._forwards is not None
        return self._forwards.find(text)

    def lease_rows(self, after: str) -> list[Row]:
        """Return a page of leases, above the address ``after``. Raises LocalError."""
        assert self._provisions is not None
        return self._provisions.leases(after)

    def policy(self, addresses: object) -> dict[str, object]:
        """Return the LAN, why each of ``addresses`` is refused, and connections that failed lately."""
        assert self._policy is not None
        assert self._relay is not None
        return told(self._policy, addresses) | {"refusals": self._relay.refusals()}

    def leases(self) -> dict[str, str]:
        """Return address to MAC of the leases in use."""
        assert self._provisions is not None
        return self._provisions.in_use()

    def reserved(self) -> dict[str, str]:
        """Return address to MAC of the gateway and of static leases."""
        return dict(self._reserved)

    def zones(self) -> tuple[Zone, ...]:
        """Return all zones, in the order in which they are asked."""
        return self._zones.all()

    def add_zone(self, zone: Zone, by: By) -> None:
        """Put a zone into force. Raises LocalError if it cannot; nothing has changed then."""
        self._zones.add(zone, by)

    def ask(self, what: str) -> Future[Reply]:
        """Ask the supervisor for a fact."""
        future: Future[Reply] = Future()
        if len(self._pending_replies) >= QUESTIONS:
            future.set_result(
                Reply(False, "the supervisor has not answered for a while; the log may say why")
            )
        else:
            self._pending_replies.append(future)
            self._channel.send(Command("ask", {"what": what}))
        return future

    def figures(self) -> dict[str, dict[str, int]]:
        """Return the number of flows now, and the counters since this process began."""
        assert self._relay is not None
        assert self._provisions is not None
        counted = Counter(self._relay.counters())
        counted.update(self._provisions.figures())
        return in_order(counted)

    def tunnel(self, guest: Address, port: int) -> Callable[[socket.socket], None]:
        """Return a tunnel to a port of a guest. Raises LocalError if no guest has that address."""
        assert self._relay is not None
        return self._relay.tunnel(guest, port)

    # Private to this file.

    def _neighbours(self) -> Future[Reply]:
        return self._holder.ask(Command("neighbours", {}))

    def tell_owners(self) -> None:
        """Tell the supervisor which port has which address, if that has changed: guards of ports use it."""
        assert self._provisions is not None
        owners = {"own": list(self._own_addresses), "leases": sorted(self._provisions.owners())[:MOST_OWNERS]}
        if owners != self._told_owners:
            self._told_owners = owners
            self._channel.send(Command("owners", owners))

    def _tell_refusals(self) -> None:
        news = self._refusals.news()
        if news is not None:
            self._refused("gateway", *news)

    def _refused(self, process: str, count: int, last: int) -> None:
        self._channel.send(Command("refused", {"process": process, "count": count, "last": last}))

    def _failed(self) -> None:
        self._log("error", f"a part of the gateway failed: {failure()}")

    def _lost(self, why: str) -> None:
        self._log("error", f"the gateway's namespace is gone: {why}")
        self._done = True

    def _log(self, level: str, text: str) -> None:
        self._channel.send(Command("log", {"level": level, "text": text}))

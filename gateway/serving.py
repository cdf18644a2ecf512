"""What a gateway serves: its relay, leases, names, forwards and API, and what is asked about them.

Theory of operation. ``Gateway`` makes this when the namespace is made and before its process enters its cell,
so everything that opens a file or loads a module happens in the constructor. ``open`` asks for the listeners
on the host; guests can be served when all of them are there. Operators (``commands``) and clients of the HTTP
API (``Services``) call the methods below.

A gateway that follows another one (``again``) serves also if the host cannot give a listener any more: its
address is gone, or its directory. It tries again then, since names and leases of every VM depend on it.

Forwards and zones change while the gateway runs. After each change all of them go to the supervisor
(``carry_over``), so that the next gateway begins with them.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from forwarder.channel import ChannelClosedError
from forwarder.counted import in_order
from forwarder.errors import LocalError
from forwarder.future import Future, gather
from forwarder.loop import Loop
from forwarder.messages import Command, Reply
from forwarder.names import GATEWAY_MAC, format_mac
from forwarder.socket_address import Servers
from gateway.api.carry_over import By, CarryOver
from gateway.api.names import Zone
from gateway.api.zones import Zones
from gateway.host_forwards import RETRY_S, Added, HostForwards
from gateway.listeners import Listener, Listeners, Outcome
from gateway.namespace import Namespace
from gateway.ports import Ports
from gateway.provisions import Provisions, Row
from gateway.relay.forwards import Forward
from gateway.relay.frames import Way
from gateway.relay.policy import Address, told
from gateway.relay.relay import Relay
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.api.http_server import HttpServer

ONCE = ("ssh-port", "kept-forward", "again")
"""Options that are of use when the gateway starts to serve, and no longer."""

MOST_OWNERS = 1500
"""Leases in one message to the supervisor: more than one for each possible port."""


class Serving:
    """The parts of one gateway that serve, from their start to ``close``."""

    def __init__(
        self,
        loop: Loop,
        namespace: Namespace,
        settings: Settings,
        plain: Mapping[str, object],
        *,
        ports: Ports,
        listeners: Listeners,
        resolvers: Callable[[], Servers],
        send: Callable[[Command], None],
        ask: Callable[[str], Future[Reply]],
        log: Callable[[str, str], None],
    ) -> None:
        """``plain``: the settings as the supervisor sent them; ``resolvers``: the host's, at any time.

        ``send`` sends to the supervisor, ``ask`` asks it for a fact; ``log``: (level, text) for the operator.
        """
        self._loop = loop
        self._listeners = listeners
        self._settings = settings
        self._send = send
        self._log = log
        self.ask = ask
        options = {key: value for key, value in plain.items() if key not in ONCE}
        carried = self._carried = CarryOver(options, send)
        self._zones = Zones(
            settings.zones, lambda zones: carried.check("dns-zone", zones), self._zones_changed
        )
        self._relay = self._begin_to_relay(namespace, ports, log)
        self._forwards = HostForwards(self._relay, listeners, carried, log)
        self._make_api = self._prepare_api() if settings.services else None
        self._http: HttpServer | None = None
        self._awaits_clients = False
        """Whether the host cannot give the API's socket now."""
        self._api_at = float("inf")
        """When to ask for it again."""
        sockets, namespace.sockets = namespace.sockets, {}
        self._provisions = Provisions(
            loop,
            sockets,
            settings,
            ports,
            log,
            lease_news=lambda record: send(Command("lease", record)),
            flooded=partial(namespace.ask, Command("flooded", {})),
            resolvers=lambda: Servers(settings.resolvers) if settings.resolvers else resolvers(),
        )
        self._told_owners: dict[str, object] = {}
        listeners.when_deleted = self._deleted

    def _begin_to_relay(self, namespace: Namespace, ports: Ports, log: Callable[[str, str], None]) -> Relay:
        """Begin to relay with the relay's share of the namespace's sockets."""
        relay = Relay(self._loop, namespace.make, self._settings.policy, log=log)
        sockets, tun, namespace.tun = namespace.sockets, namespace.tun, -1
        relay.serve([sockets.pop(name) for name in ("tcp4", "tcp6")])
        frames = [sockets.pop(name) for name in list(sockets) if name.startswith("frames")]
        neighbours = partial(namespace.ask, Command("neighbours", {}))
        relay.carry(Way(tun, frames, ports.of, neighbours, self._settings.mtu))
        ports.when_joined(relay.joined)
        ports.when_left(relay.left)
        return relay

    def _prepare_api(self) -> "Callable[[Listener], HttpServer]":
        """Import the modules of the API: in its cell the process opens no file."""
        from gateway.api.http_server import HttpServer  # noqa: PLC0415 - 1.5 MiB
        from gateway.api.services import Services  # noqa: PLC0415

        return lambda listener: HttpServer(self._loop, listener, Services(self).handle)

    def open(self, forwards: list[Forward], *, again: bool) -> Future[LocalError | None]:
        """Listen wherever the operator wants; the result is what cannot be had of it, if anything.

        ``again``: an earlier gateway has listened there, so what cannot be had is awaited.
        """
        texts = [str(forward) for forward in forwards]
        later = [text for text in self._settings.kept_forwards if text not in texts]
        wanted: list[Future[Any]] = []
        if again:
            later = [*texts, *later]
        else:
            wanted = [self._forwards.begin(forward) for forward in forwards]
        if self._settings.services:
            api = self._listen_for_clients()
            wanted.append(api.map(self._await_clients) if again else api)
        kept = [self._forwards.begin_again(text) for text in later]
        return gather([*wanted, *kept]).map(lambda results: self._opened(results[: len(wanted)]))

    def _opened(self, results: list[Any]) -> LocalError | None:
        error = next((each for each in results if isinstance(each, LocalError)), None)
        if error is None:
            self._forwards.remember()
        return error

    def _listen_for_clients(self) -> Future[LocalError | None]:
        return self._listeners.at_path(self._settings.services).map(self._serve_api)

    def _await_clients(self, error: LocalError | None) -> None:
        """Listen again later if that is impossible now."""
        awaited, self._awaits_clients = self._awaits_clients, error is not None
        if error is not None:
            self._api_at = time.monotonic() + RETRY_S
        if error is not None and not awaited:
            self._log("warning", f"{error}; that is tried again every {RETRY_S:g} s")
        elif error is None and awaited:
            self._log("info", f"{self._settings.services} is there again")

    def _serve_api(self, listener: Outcome) -> LocalError | None:
        if isinstance(listener, LocalError):
            return LocalError(f"services: {listener}")
        assert self._make_api is not None
        if self._http is None:
            self._http = self._make_api(listener)
        else:
            self._http.move(listener)
        return None

    def _deleted(self, listener: int) -> None:
        """Listen anew: the file of that listener was deleted."""
        if self._http is not None and self._http.listener == listener:
            self._listen_for_clients().map(self._await_clients)
        else:
            self._forwards.deleted(listener)

    def _zones_changed(self, zones: tuple[Zone, ...], by: By) -> None:
        self._provisions.change_zones(zones)
        self._carried.change("dns-zone", zones, by)

    # For the gateway's loop.

    @property
    def busy(self) -> bool:
        """Whether the relay has more to do at once."""
        return self._relay.busy

    def tick(self, now: float) -> float:
        """Do what is due; return when something is the next time."""
        if now >= self._api_at:
            self._api_at = float("inf")
            self._listen_for_clients().map(self._await_clients)
        due = self._api_at
        for part in (self._relay, self._provisions, self._http, self._forwards):
            deadline = None if part is None else part.deadline()
            if part is not None and deadline is not None:
                if deadline <= now:
                    part.tick(now)
                due = min(due, deadline)
        return due

    def close(self) -> None:
        """End all parts."""
        for part in (self._http, self._relay, self._provisions):
            if part is not None:
                with suppress(ChannelClosedError):  # the supervisor is told of each listener
                    part.close()

    # For operators and for the API.

    def described(self) -> dict[str, object]:
        """Return what the supervisor keeps of a gateway that serves."""
        policy = self._settings.policy
        return {
            "subnet": str(policy.subnet),
            "prefix": str(policy.prefix),
            "forwards": self._forwards.texts(),
            "figures": self.figures(),
        }

    def tell_owners(self) -> None:
        """Tell the supervisor which port has which address, if that has changed: guards of ports use it."""
        owners = {
            "own": list(map(str, self._settings.own_addresses)),
            "leases": sorted(self._provisions.owners())[:MOST_OWNERS],
        }
        if owners != self._told_owners:
            self._told_owners = owners
            self._send(Command("owners", owners))

    def forwards(self) -> list[Forward]:
        """Return all forwards."""
        return self._forwards.all()

    def wanted_forwards(self) -> list[Forward]:
        """Return all forwards, and those that the host cannot give now."""
        return self._forwards.wanted()

    def add_forward(self, forward: Forward, by: By) -> Future[Added]:
        """Begin to forward. Raises LocalError, like a result that is one: nothing has changed."""
        return self._forwards.add(forward, by)

    def remove_forward(self, forward: Forward, by: By) -> None:
        """End a forward. Raises LocalError if there is no such forward."""
        self._forwards.remove(forward, by)

    def forward(self, text: str) -> Forward:
        """Return the forward that an operator means. Raises LocalError if there is none."""
        return self._forwards.find(text)

    def lease_rows(self, after: str) -> list[Row]:
        """Return a page of leases, above the address ``after``. Raises LocalError."""
        return self._provisions.leases(after)

    def policy(self, addresses: object) -> dict[str, object]:
        """Return the LAN, why each of ``addresses`` is refused, and connections that failed lately."""
        return told(self._settings.policy, addresses) | {"refusals": self._relay.refusals()}

    def leases(self) -> dict[str, str]:
        """Return address to MAC of the leases in use."""
        return self._provisions.in_use()

    def reserved(self) -> dict[str, str]:
        """Return address to MAC of the gateway and of static leases."""
        own = {str(self._settings.policy.gateway4): format_mac(GATEWAY_MAC)}
        return own | {str(lease.address): lease.mac for lease in self._settings.leases}

    def zones(self) -> tuple[Zone, ...]:
        """Return all zones, in the order in which they are asked."""
        return self._zones.all()

    def add_zone(self, zone: Zone, by: By) -> None:
        """Put a zone into force. Raises LocalError if it cannot; nothing has changed then."""
        self._zones.add(zone, by)

    def figures(self) -> dict[str, dict[str, int]]:
        """Return the number of flows now, and the counters since this process began."""
        counted = Counter(self._relay.counters())
        counted.update(self._provisions.figures())
        return in_order(counted)

    def tunnel(self, guest: Address, port: int) -> Callable[[socket.socket], None]:
        """Return a tunnel to a port of a guest. Raises LocalError if no guest has that address."""
        return self._relay.tunnel(guest, port)

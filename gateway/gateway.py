"""One gateway: puts its parts together and runs their loop.

Theory of operation
-------------------
One process, one thread. The supervisor starts it with a channel and sends ``serve``. The gateway makes the
namespace (``namespace``), passes the TAP to the supervisor, starts the relay (``relay``) and answers when it
can serve guests. From then on it answers the supervisor's requests in order. If the start fails, the answer
is one line that names cause and remedy. A later failure ends the process, and the supervisor starts another
one within its restart budget.

Forwards and zones change while the gateway runs. After each change the gateway sends all of them to the
supervisor, so that the next gateway begins with them. The gateway also asks the supervisor, for its HTTP API;
each question gets one answer, in order. The supervisor tells it which ports come and go (``ports``).

The gateway ends when its channel ends: a supervisor could not repair a gateway that it cannot reach.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from forwarder.channel import ChannelClosedError
from forwarder.counted import in_order
from forwarder.errors import LocalError, PeerError, UsageError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Command, Handover, Message, Reply
from forwarder.names import GATEWAY_MAC, format_mac
from gateway import overlap
from gateway.api.carry_over import Memory
from gateway.api.http_server import CONNECTIONS, HttpServer
from gateway.api.names import Zone
from gateway.api.services import Services
from gateway.api.zones import Zones
from gateway.namespace import Holder
from gateway.ports import Port, Ports
from gateway.provisions import Provisions
from gateway.relay.forwards import Forward
from gateway.relay.frames import Way
from gateway.relay.policy import Address, OutboundPolicy, told
from gateway.relay.relay import Relay
from gateway.settings import Settings, read

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

    def __init__(self, channel: LoopChannel) -> None:
        self._channel = channel
        self._loop = Loop()
        self._holder = Holder(self._loop, self._lost, self._log)
        self._relay: Relay | None = None
        self._policy: OutboundPolicy | None = None
        self._provisions: Provisions | None = None
        self._ports = Ports()
        self._pending_replies: deque[Future[Reply]] = deque()
        self._http: HttpServer | None = None
        self._done = False
        self._due = self._look = 0.0
        self._own_addresses: tuple[str, ...] = ()
        self._told_owners: dict[str, object] = {}

    def run(self) -> None:
        """Serve until the channel, or the namespace, ends."""
        self._channel.watch(self._loop, self._receive)
        try:
            while not self._done:
                self._turn()
        except ChannelClosedError:
            pass
        finally:
            if self._http is not None:
                self._http.close()
            self._holder.close()
            for part in (self._relay, self._provisions):
                if part is not None:
                    part.close()
            self._channel.close()

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= min(self._due, self._look) or (self._relay is not None and self._relay.busy):
            self._due, self._look = self._tick(now), now + LOOK_S
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
            case Handover("block"):
                self._ports.map(descriptors[0])
            case Command("ports", {"ports": list(ports)}):
                self._ports.are(Port(number, born) for number, born in ports)
            case Command("joined", {"port": int(number), "born": int(born)}):
                self._ports.joined(Port(number, born))
            case Command("left", {"port": int(number), "born": int(born)}):
                self._ports.left(Port(number, born))
            case Command():
                self._answer(message)
            case _:
                raise PeerError(f"a {type(message).__name__} is not for the gateway")

    def _answer(self, message: Command) -> None:
        try:
            result = self._run(message.name, message.arguments)
        except UsageError as error:
            self._channel.send(Reply(False, {"usage": str(error)}))
        except LocalError as error:
            self._channel.send(Reply(False, str(error)))
        else:
            self._channel.send(Reply(True, result))

    def _run(self, name: str, arguments: Mapping[str, object]) -> object:
        if name == "serve" and self._relay is None:
            return self._serve(arguments)
        if name == "check":
            return _check(arguments)
        if self._relay is None:
            raise LocalError("the gateway does not serve yet")
        if name == "leases":
            assert self._provisions is not None
            return {"leases": self._provisions.leases(str(arguments["after"]))}
        if name == "figures":
            self._tell_owners()
            return {"figures": self.figures()}
        if name == "policy":
            assert self._policy is not None
            return told(self._policy, arguments["addresses"])
        return self._run_forward(name, arguments)

    def _run_forward(self, name: str, arguments: Mapping[str, object]) -> object:
        if name == "forward_list":
            return {"forwards": self._texts()}
        if name == "forward_add":
            return {"forward": str(self.add_forward(Forward.parse(str(arguments["forward"]))))}
        if name == "forward_remove":
            removed = self._find(str(arguments["forward"]))
            self.remove_forward(removed)
            return {"forward": str(removed)}
        raise LocalError(f"there is no command {name}; the gateway is another version")

    def _serve(self, plain: Mapping[str, object]) -> dict[str, object]:
        settings = read(plain)
        policy = self._policy = settings.policy
        overlap.check(policy.subnet, Path("/proc/net/route").read_text())
        forwards = [Forward.parse(text) for text in settings.forwards]
        self._begin_to_remember(plain, settings)
        self._holder.start(plain)
        relay = self._relay = Relay(self._loop, self._holder.make, policy, log=self._log)
        sockets, self._holder.sockets = self._holder.sockets, {}
        tun, self._holder.tun = self._holder.tun, -1
        self._relay.serve([sockets.pop(name) for name in ("tcp4", "tcp6")])
        frames = [sockets.pop(name) for name in list(sockets) if name.startswith("frames")]
        self._relay.carry(Way(tun, frames, self._ports.of, self._neighbours, settings.mtu))
        self._ports.when_left(relay.left)
        flooded = partial(self._holder.ask, Command("flooded", {}))
        self._provisions = Provisions(self._loop, sockets, settings, self._ports, self._log, flooded=flooded)
        for forward in forwards:
            self._relay.add(forward)
        for text in settings.kept_forwards:
            self._add_kept(text)
        self._memory.change("forward", self._relay.forwards())
        self._own_addresses = tuple(map(str, settings.own_addresses))
        self._reserved = {str(policy.gateway4): format_mac(GATEWAY_MAC)}
        self._reserved |= {str(lease.address): lease.mac for lease in settings.leases}
        if settings.services:
            self._http = HttpServer(self._loop, settings.services, Services(self).handle)
        self._channel.send(Handover("tap", {}, 1), (self._holder.tap,))
        os.close(self._holder.tap)
        self._holder.tap = -1
        self._tell_owners()
        where = {"subnet": str(policy.subnet), "prefix": str(policy.prefix)}
        return {**where, "forwards": self._texts(), "figures": self.figures()}

    def _begin_to_remember(self, plain: Mapping[str, object], settings: Settings) -> None:
        options = {key: value for key, value in plain.items() if key not in ONCE}
        memory = self._memory = Memory(options, self._channel.send)
        self._zones = Zones(
            settings.zones,
            lambda zones: memory.check("dns-zone", zones),
            self._zones_changed,
        )

    def _zones_changed(self, zones: tuple[Zone, ...]) -> None:
        assert self._provisions is not None
        self._provisions.change_zones(zones)
        self._memory.change("dns-zone", zones)

    # For operators and for the API.

    def forwards(self) -> list[Forward]:
        """Return all forwards."""
        assert self._relay is not None
        return self._relay.forwards()

    def add_forward(self, forward: Forward) -> Forward:
        """Begin to forward; return the forward with its real port.

        Raises LocalError; nothing has changed then.
        """
        assert self._relay is not None
        self._memory.check("forward", [*self.forwards(), forward._replace(port=65535)])
        added = self._relay.add(forward)
        self._memory.change("forward", self.forwards())
        return added

    def remove_forward(self, forward: Forward) -> None:
        """End a forward. Raises LocalError if there is no such forward."""
        assert self._relay is not None
        self._relay.remove(forward)
        self._memory.change("forward", self.forwards())

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

    def add_zone(self, zone: Zone) -> None:
        """Put a zone into force. Raises LocalError if it cannot; nothing has changed then."""
        self._zones.add(zone)

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
        return in_order(self._relay.counters() | self._provisions.counters)

    def tunnel(self, guest: Address, port: int) -> Callable[[socket.socket], None]:
        """Return a tunnel to a port of a guest. Raises LocalError if no guest has that address."""
        assert self._relay is not None
        return self._relay.tunnel(guest, port)

    # Private to this file.

    def _neighbours(self) -> Future[Reply]:
        return self._holder.ask(Command("neighbours", {}))

    def _find(self, text: str) -> Forward:
        """Return the forward that ``text`` names: its whole text, or the host's address alone.

        Raises LocalError.
        """
        for forward in self.forwards():
            if text in (str(forward), forward.near):
                return forward
        raise LocalError(f"there is no forward {text}; `supervisor forward list` shows all")

    def _add_kept(self, text: str) -> None:
        """Restore the forwards that operators had added before the supervisor was killed."""
        assert self._relay is not None
        try:
            forward = Forward.parse(text)
            if forward not in self._relay.forwards():
                self._relay.add(forward)
        except LocalError as error:
            self._log("warning", f"a forward that was added at run time cannot be restored: {error}")

    def _tell_owners(self) -> None:
        """Tell the supervisor which port has which address, if that has changed: guards of ports use it."""
        assert self._provisions is not None
        owners = {"own": list(self._own_addresses), "leases": sorted(self._provisions.owners())[:MOST_OWNERS]}
        if owners != self._told_owners:
            self._told_owners = owners
            self._channel.send(Command("owners", owners))

    def _texts(self) -> list[str]:
        return [str(forward) for forward in self.forwards()]

    def _lost(self, why: str) -> None:
        self._log("error", f"the gateway's namespace is gone: {why}")
        self._done = True

    def _log(self, level: str, text: str) -> None:
        self._channel.send(Command("log", {"level": level, "text": text}))


def _check(plain: Mapping[str, object]) -> dict[str, object]:
    """Return the subnet and forwards that would be served. Raises LocalError if the start would fail."""
    settings = read(plain)
    overlap.check(settings.policy.subnet, Path("/proc/net/route").read_text())
    forwards = [str(Forward.parse(text)) for text in settings.forwards]
    return {"subnet": str(settings.policy.subnet), "forwards": forwards}

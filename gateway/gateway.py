"""Composition: the parts of one gateway, and the loop around them.

Theory of operation
-------------------
One process, one thread. The supervisor starts it with a channel and says ``serve``; it makes the namespace
(``holder``), passes the TAP on, starts to relay (``relay``) and answers when guests can be served. From then
on the supervisor asks and it answers, in order. What goes wrong before that is the answer, one line that
names cause and remedy; what goes wrong later ends the process, and the supervisor starts another one under
its restart budget.

Forwards change while the gateway runs. After each change the supervisor is told the whole list, so that the
next gateway begins with it.

The end of the channel is the end of the gateway: what the supervisor does not know of, it cannot mend.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from forwarder.channel import Channel, ChannelClosedError
from forwarder.errors import LocalError, PeerError
from forwarder.loop import Loop
from forwarder.wire import Command, Handover, Message, Reply
from gateway import overlap, resolvers
from gateway.forwards import Forward
from gateway.holder import Holder
from gateway.http_server import HttpServer
from gateway.relay import Relay
from gateway.services import Services
from gateway.settings import read

IDLE_S = 3600.0


class Gateway:
    """One gateway, from construction to the end of ``run``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = Loop()
        self._holder = Holder(self._loop, self._lost, self._log)
        self._relay: Relay | None = None
        self._http: HttpServer | None = None
        self._done = False

    def run(self) -> None:
        """Serve until the channel, or the namespace, ends."""
        self._loop.watch(self._channel.fileno(), lambda _: self._receive())
        try:
            while not self._done:
                self._turn()
        except ChannelClosedError:
            pass
        finally:
            if self._http is not None:
                self._http.close()
            self._holder.close()
            if self._relay is not None:
                self._relay.close()
            self._channel.close()

    def _turn(self) -> None:
        deadline = None if self._relay is None else self._relay.deadline()
        now = time.monotonic()
        if self._relay is not None and deadline is not None and deadline <= now:
            self._relay.tick(now)
        self._loop.turn(IDLE_S if deadline is None else deadline - now)

    def _receive(self) -> None:
        self._channel.flush()
        while (received := self._channel.receive()) is not None:
            self._take(received[0])

    def _take(self, message: Message) -> None:
        if not isinstance(message, Command):
            raise PeerError(f"a {type(message).__name__} is not for the gateway")
        try:
            result = self._run(message.name, message.arguments)
        except LocalError as error:
            self._channel.send(Reply(False, str(error)))
        else:
            self._channel.send(Reply(True, result))

    def _run(self, name: str, arguments: Mapping[str, object]) -> object:
        if name == "serve" and self._relay is None:
            return self._serve(arguments)
        if self._relay is None:
            raise LocalError("the gateway does not serve yet")
        if name == "forward_list":
            return {"forwards": self._forwards()}
        if name == "forward_add":
            return {"forward": str(self._add(Forward.parse(str(arguments["forward"]))))}
        if name == "forward_remove":
            removed = self._find(str(arguments["forward"]))
            self._remove(removed)
            return {"forward": str(removed)}
        raise LocalError(f"there is no command {name}; the gateway is another version")

    def _serve(self, plain: Mapping[str, object]) -> dict[str, object]:
        settings = read(plain)
        policy = settings.policy
        if not policy.resolver:
            policy = policy._replace(resolver=_resolvers())
        overlap.check(policy.subnet, Path("/proc/net/route").read_text())
        forwards = [Forward.parse(text) for text in settings.forwards]
        self._holder.start(plain)
        self._relay = Relay(self._loop, self._holder.make, policy)
        self._relay.serve(self._holder.sockets)
        self._holder.sockets = {}
        self._relay.attach_tun(self._holder.tun)
        self._holder.tun = -1
        for forward in forwards:
            self._relay.add(forward)
        self._tell_forwards()
        if settings.services:
            self._http = HttpServer(self._loop, settings.services, self._services(settings.lease_file).handle)
        self._channel.send(Handover("tap", {}, 1), (self._holder.tap,))
        os.close(self._holder.tap)
        self._holder.tap = -1
        return {"subnet": str(policy.subnet), "prefix": str(policy.prefix), "forwards": self._forwards()}

    def _services(self, lease_file: str) -> Services:
        assert self._relay is not None
        return Services(self._relay.forwards, self._add, self._remove, Path(lease_file).read_text)

    def _add(self, forward: Forward) -> Forward:
        assert self._relay is not None
        added = self._relay.add(forward)
        self._tell_forwards()
        return added

    def _remove(self, forward: Forward) -> Forward:
        assert self._relay is not None
        self._relay.remove(forward)
        self._tell_forwards()
        return forward

    def _find(self, text: str) -> Forward:
        """Return the forward that ``text`` names, whole or by where the host listens. Raises LocalError."""
        assert self._relay is not None
        for forward in self._relay.forwards():
            if text in (str(forward), forward.near):
                return forward
        raise LocalError(f"there is no forward {text}; `supervisor forward list` shows all")

    def _forwards(self) -> list[str]:
        assert self._relay is not None
        return [str(forward) for forward in self._relay.forwards()]

    def _tell_forwards(self) -> None:
        self._channel.send(Command("forwards", {"forwards": self._forwards()}))

    def _lost(self, why: str) -> None:
        self._log("error", f"the gateway's namespace is gone: {why}")
        self._done = True

    def _log(self, level: str, text: str) -> None:
        self._channel.send(Command("log", {"level": level, "text": text}))


def _resolvers() -> tuple[tuple[str, int], ...]:
    try:
        return resolvers.read(Path("/etc/resolv.conf").read_text().splitlines())
    except OSError:
        return ()

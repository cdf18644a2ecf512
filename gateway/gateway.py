"""One gateway: the loop of its process, and what it says to the supervisor and hears from it.

Theory of operation
-------------------
One process, one thread. The supervisor starts it with a channel and says ``serve``; it makes the namespace,
begins to serve (``serving``), enters its cell, passes the TAP on and answers when guests can be served. From
then on the supervisor asks and it answers, in order. What goes wrong before that is the answer, one line
that names cause and remedy; what goes wrong later ends the process, and the supervisor starts
another one under its restart budget.

Guests' packets are read here, so no guest is near before the process is in its cell (``process.cell``):
from then on it opens no file, starts no program and listens nowhere. What it needs of that kind it asks of
the supervisor: listeners (``listeners``), and the host's resolvers, which it is told when they change. The
supervisor tells it which ports come and go (``ports``), and answers the questions of its HTTP API
(``questions``).

The gateway ends when its channel ends: a supervisor could not repair a gateway that it cannot reach.
"""

import os
import socket
import time
from collections.abc import Mapping
from functools import partial

from forwarder.channel import ChannelClosedError
from forwarder.errors import LocalError, PeerError
from forwarder.future import Future, known
from forwarder.loop import Loop, failure
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Command, Handover, Message, Reply
from forwarder.process import cell
from forwarder.socket_address import Servers
from gateway import answers, commands, overlap
from gateway.answers import Answers
from gateway.check import checked
from gateway.listeners import Listeners
from gateway.namespace import Namespace
from gateway.namespace_process import NamespaceProcess
from gateway.ports import Port, Ports
from gateway.questions import Questions
from gateway.relay.forwards import Forward
from gateway.serving import Serving
from gateway.settings import read

IDLE_S = 3600.0

LOOK_S = 0.001
"""Time between two looks for due work while the loop is busy: a look costs as much as an event."""


class Gateway:
    """One gateway, from construction to the end of ``run``."""

    def __init__(self, channel: LoopChannel, process: NamespaceProcess) -> None:
        """``process``: the process in the namespace, which has just been started."""
        self._channel = channel
        self._loop = Loop(self._failed)
        refused = partial(self._refused, "namespace")
        self._namespace = Namespace(self._loop, process, self._lost, self._log, refused)
        self._serving: Serving | None = None
        self._ports = Ports()
        self._ports.catch_up = self._receive
        self._listeners = Listeners(channel.send)
        self._resolvers = Servers(())
        """The host's, as the supervisor said last."""
        self._refusals = cell.Refusals()
        self._questions = Questions(channel.send)
        self._answers = Answers(channel.send)
        self._done = False
        self._due = self._look = 0.0

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
            self._namespace.close()
            if self._serving is not None:
                self._serving.close()
            self._channel.close()

    def _end(self) -> None:
        self._done = True

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= min(self._due, self._look) or (self._serving is not None and self._serving.busy):
            self._due, self._look = self._tick(now), now + LOOK_S
            self._tell_refusals()
            self._loop.turn(self._due - now)
        else:  # an event since the last look may have brought a deadline of its own
            self._loop.turn(min(self._due, self._look) - now)

    def _tick(self, now: float) -> float:
        """Do what is due; return when something is the next time."""
        due = now + IDLE_S
        return due if self._serving is None else min(due, self._serving.tick(now))

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
            case Reply():
                self._questions.answered(message)
            case Handover("listener", {"number": int(number), "port": int(port)}):
                self._listeners.made(number, port, descriptors[0])
            case Command("no_listener", {"number": int(number), "why": str(why)}):
                self._listeners.refused(number, why)
            case Command("resolvers", {"servers": list(servers), "by_tcp": bool(by_tcp)}):
                self._resolvers = Servers(tuple(map(tuple, servers)), by_tcp)
            case Handover("stats"):
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
        """Return the answer to the supervisor, which may be known later. Raises LocalError."""
        if command.name == "check":
            return known(Reply(True, checked(command.arguments)))
        if self._serving is not None:
            return commands.run(self._serving, command)
        if command.name == "serve":
            return self._serve(command.arguments)
        raise LocalError("the gateway does not serve yet")

    def _serve(self, plain: Mapping[str, object]) -> Future[Reply]:
        settings = read(plain)
        again = plain.get("again") is True
        try:
            overlap.check_host(settings.policy.subnet)
        except LocalError as error:
            if not again:
                raise
            self._log("warning", f"guests cannot reach some hosts: {error}")
        forwards = [Forward.parse(text) for text in settings.forwards]
        self._namespace.start(plain)
        self._channel.send(Handover("namespace", {}, 1), (self._namespace.pidfd,))
        serving = self._serving = Serving(
            self._loop,
            self._namespace,
            settings,
            plain,
            ports=self._ports,
            listeners=self._listeners,
            resolvers=lambda: self._resolvers,
            send=self._channel.send,
            ask=self._questions.ask,
            log=self._log,
        )
        cells = {"gateway": cell.plain(cell.enter("gateway")), "namespace": self._namespace.cell}
        return serving.open(forwards, again=again).map(
            lambda error: answers.refusal(error) if error is not None else self._served(serving, cells)
        )

    def _served(self, serving: Serving, cells: Mapping[str, object]) -> Reply:
        """Tell the supervisor that guests can be served."""
        self._channel.send(Handover("tap", {}, 1), (self._namespace.tap,))
        os.close(self._namespace.tap)
        self._namespace.tap = -1
        serving.tell_owners()
        return Reply(True, serving.described() | {"cells": cells})

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

"""The gateway, seen from the supervisor: a process that makes a TAP, and the port that serves the TAP.

Theory of operation
-------------------
``python -m gateway`` gets a channel and the operator's options. It sends the TAP and says that it is ready,
or why not. The supervisor owns nothing of the gateway's network; it sees the process and the port:

- the process ends: its port is detached (the namespace behind it is gone). When the port has gone, another
  process is started within the restart budget, or when its losses are forgotten; its port gets the same name;
- the port goes (the operator detached it): the gateway is ended for good;
- the supervisor ends: the end of the channel ends the gateway. If the supervisor was killed, the port and its
  worker stay; the next supervisor takes them over, detaches the port and starts a new gateway.

The supervisor tells the gateway which ports come and go, which addresses VMs use, and the host's resolvers
(``announcements``). The gateway finds the port of a MAC address in the MAC table of its own port's worker
(``gateway.ports``). Its process is in a cell, so it asks for what it cannot have by itself (``requests``).
Forwards and zones that were added outlive the process: after each change the gateway sends them for its
successor (``remember``).

The supervisor passes operators' commands on, and asks for the gateway's figures once a second. So it notices
a gateway that hangs (``questions``), shows it as silent and does not wait for it. A gateway that hangs for
long is replaced. ``port`` makes the port of the TAP; ``child`` is the process.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError, UsageError
from forwarder.future import Future, known
from forwarder.loop import Loop
from forwarder.messages import Command, Handover, Message, Reply
from forwarder.names import Identity, PortRecord
from forwarder.restart_budget import Budget
from forwarder.unix_sockets import SocketFile
from supervisor.base.cells import CellPolicy
from supervisor.base.logs import log, say
from supervisor.base.saved_state import SavedState
from supervisor.gateway import confinement
from supervisor.gateway.announcements import Announcements, InUse
from supervisor.gateway.child import END_S, GatewayChild
from supervisor.gateway.ends import Ends
from supervisor.gateway.facts import Facts
from supervisor.gateway.kept import KeptAdditions, remembered
from supervisor.gateway.limited_channel import LimitedChannel
from supervisor.gateway.port import GatewayPort, PortHandler
from supervisor.gateway.questions import ASK_S, LATE_S, MOST, REPLACE_S, Questions
from supervisor.gateway.requests import Requests
from supervisor.gateway.states import SERVING, TRANSITIONS, GatewayEvent, GatewayState
from supervisor.ports.view import PortView

LEASES = "gateway.leases"

START_S = 20.0
"""A little more than the gateway waits for its namespace."""


class GatewayProcess:
    """The gateway of one switch, if it has one."""

    def __init__(
        self,
        loop: Loop,
        handler: PortHandler,
        runtime_dir: str,
        options: Mapping[str, object],
        facts: Facts,
        *,
        in_use: InUse,
        saved: SavedState,
        cells: CellPolicy,
        child: GatewayChild | None,
    ) -> None:
        """``child``: the first process, if it has been started already."""
        self._loop = loop
        self._cells = cells
        self._requests: Requests | None = None
        self._port = GatewayPort(handler)
        self._announcements = Announcements(self._say, in_use, self._port.present)
        self._facts = facts
        self._kept = KeptAdditions(saved)
        self._lease_file = os.path.join(runtime_dir, LEASES)
        self._questions = Questions()
        self._ask_at = float("inf")
        self._figures: dict[str, object] = {}
        """The gateway's counters, from its last answer."""
        self.owners = self._port.owners
        self._options: dict[str, object] = {**options, "lease-file": self._lease_file}
        self._ends = Ends(Budget())
        self._first = child
        self._child: GatewayChild | None = None
        self._channel: LimitedChannel | None = None
        self._has_served = False
        self._due = float("inf")
        self._kill_at = float("inf")
        self.state = GatewayState.OFF
        self.failure = ""
        """Why the last process did not get to serve."""
        self._misused = False
        """Whether the failure lies in the operator's options."""

    def begin(self, turn: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Start the gateway, and ``turn`` until it serves or the switch is ``stopping``.

        Raises LocalError.
        """
        while self._port.exists and not stopping():
            turn()  # the port of the gateway before has to leave first, or this one would get another name
        self._options = self._kept.restored(self._options)
        self._start()
        while self.state is GatewayState.STARTING and not stopping():
            turn()
        if self.state is not GatewayState.UP and not stopping():
            why = self.failure or "the gateway ended at once; the log says why"
            raise UsageError(why) if self._misused else LocalError(why)

    def took_over(self, records: Iterable[PortRecord]) -> None:
        """Detach the port of the gateway that ended with the supervisor before."""
        self._port.took_over(records)

    def _start(self) -> None:
        self._child, self._first = self._first or GatewayChild(), None
        self._child.watch(self._loop, self._ended)
        self._to(GatewayEvent.START)
        self._kill_at = time.monotonic() + START_S
        self.failure, self._misused = "", False
        self._channel = LimitedChannel(self._child.channel)
        self._channel.watch(self._loop, self._receive)
        self._requests = Requests(self._say, self._facts, self._options, self._port.name_of)
        self._announcements.begin()
        try:
            self._channel.send(Command("serve", {**self._options, "again": self._has_served}))
        except ChannelClosedError:  # the process has ended; the loop will say so
            self._hang_up()

    def ask(self, name: str, arguments: dict[str, object]) -> Future[Reply]:
        """Pass a command on. Raises LocalError if the gateway cannot answer."""
        if self.state is GatewayState.OFF:
            raise LocalError("this switch has no gateway; run it with --gateway")
        if self.state is GatewayState.SILENT:
            raise LocalError(self._silence())
        if self.state is not GatewayState.UP or self._channel is None:
            raise LocalError(f"the gateway does not serve now ({self.state.value}); the log says why")
        if len(self._questions) >= MOST:
            raise LocalError("the gateway has not answered for a while; the log may say why")
        if self._requests is not None and "forward" in arguments:
            self._requests.expect(str(arguments["forward"]))
            arguments = {**arguments, "asked": self._kept.asked()}
        future = self._questions.ask(time.monotonic())
        try:
            self._channel.send(Command(name, arguments))
        except ChannelClosedError:
            self._hang_up()  # which answers
        return future

    def figures(self) -> Future[dict[str, object] | None]:
        """Return its state and counters: its answer of now or, if it does not answer, its last one."""
        may_ask = self.state is GatewayState.UP and len(self._questions) < MOST
        return self._ask_figures() if may_ask else known(self._shown())

    def view(self, port: PortView) -> PortView:
        """Return the state in which to show a port: the port of a gateway that hangs is silent."""
        if self.state is GatewayState.SILENT and self._port.is_port(port.record):
            return port._replace(state=self.state.value)
        return port

    def summary(self) -> dict[str, object] | None:
        """Return the state; None if there is no gateway."""
        return None if self.state is GatewayState.OFF else {"state": self.state.value}

    def processes(self) -> tuple[tuple[str, Identity], ...]:
        """Return its processes by name."""
        return self._child.processes() if self._child is not None else ()

    def _shown(self) -> dict[str, object] | None:
        return None if (summary := self.summary()) is None else summary | self._figures

    def _ask_figures(self) -> Future[dict[str, object] | None]:
        self._ask_at = time.monotonic() + ASK_S
        self._announcements.tell()
        return self.ask("figures", {}).map(self._take_figures)

    def _take_figures(self, reply: Reply) -> dict[str, object] | None:
        if reply.ok and isinstance(reply.result, dict):
            self._figures = reply.result.get("figures", self._figures)
            self._announcements.resolvers.watch.look(self._figures, time.monotonic())
        return self._shown()

    def _silence(self) -> str:
        pid, seconds = self._child.pid if self._child else 0, self._questions.silence(time.monotonic())
        return f"the gateway (pid {pid}) has not answered for {seconds:.1f} s; it may be stopped or stuck"

    def stop(self) -> None:
        """Begin to end the gateway; ``ended`` says when that is done."""
        self._to(GatewayEvent.STOP)
        self._due = float("inf")
        self._hang_up()
        if self._child is not None:
            self._kill_at = time.monotonic() + END_S

    @property
    def ended(self) -> bool:
        """Whether the gateway has no process."""
        return self._child is None

    def joined(self, record: PortRecord) -> None:
        """Note that a port has joined."""
        self._announcements.joined(record)

    def released(self, record: PortRecord) -> None:
        """Note that a port has left."""
        is_own = self._port.released(record)
        self._announcements.left(record)
        if is_own and self.state in SERVING:
            say("gateway", "the gateway's port is gone, and the gateway with it", state="off")
            self.stop()

    def mend(self) -> list[SocketFile]:
        """Make sockets again whose files were deleted; return the files of all."""
        return self._requests.mend() if self._requests is not None and self.state in SERVING else []

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._channel is not None:
            self._channel.tick(now)
        if self.state in SERVING:
            self._listen(now)
        if now >= self._kill_at and self._child is not None:
            self._kill_at = float("inf")
            if self.state is GatewayState.STARTING and not self.failure:
                self.failure = f"the gateway did not serve within {START_S:g} s"
            self._child.kill()
        if now >= self._due and not self._port.exists and self._child is None:
            self._due = float("inf")
            try:
                self._start()
            except LocalError as error:
                log.error("%s", error)
                self._due = now + Budget().longest_s

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        due = self._due if not self._port.exists and self._child is None else float("inf")
        ask_at = float("inf") if self._questions or self.state is not GatewayState.UP else self._ask_at
        resume_at = self._channel.deadline() if self._channel is not None else float("inf")
        return min(due, ask_at, self._questions.deadline(), self._kill_at, self._replace_at(), resume_at)

    def _replace_at(self) -> float:
        """When to replace a gateway that is silent."""
        return self._questions.began() + REPLACE_S if self.state is GatewayState.SILENT else float("inf")

    def _listen(self, now: float) -> None:
        """Ask for the figures, and notice that an answer is late."""
        if now >= min(self._questions.deadline(), self._replace_at()) + LATE_S:
            self._questions.excuse(now)
        if now >= self._questions.deadline():
            self._receive()  # an answer that has come but was not read yet counts
            if self._questions.give_up(now, self._silence()):
                if self.state is GatewayState.UP:
                    text = f"{self._silence()}; guests' new connections and commands fail"
                    say("gateway", text, "warning", state="silent")
                self._to(GatewayEvent.UNANSWERED)
        if now >= self._replace_at():
            say("gateway", f"{self._silence()}, and is replaced", "error", state="ended")
            self._hang_up()
            self._kill_at = now
        if now >= self._ask_at and not self._questions and self.state is GatewayState.UP:
            self._ask_figures()

    def _heard(self) -> None:
        """Note that the gateway answers."""
        if self.state is GatewayState.SILENT:
            silence = self._questions.silence(time.monotonic())
            say("gateway", f"the gateway answers again after {silence:.1f} s", state="live")
        self._to(GatewayEvent.ANSWERED)

    def close(self, *, keep: bool) -> None:
        """End the process and wait for it, which does not take long; ``keep`` the leases for the next one."""
        self._hang_up()
        for child in (self._child, self._first):
            if child is not None:
                child.close()
        self._child = self._first = None
        for lease_file in () if keep else (self._lease_file, f"{self._lease_file}.2"):
            with suppress(FileNotFoundError):
                os.unlink(lease_file)

    def _to(self, event: GatewayEvent) -> None:
        self.state = TRANSITIONS[self.state, event]

    def _receive(self) -> None:
        """Take what it says, as much as it may say now."""
        if self._channel is not None:
            self._take(self._channel.heard())

    def _take(self, messages: Iterator[tuple[Message, tuple[int, ...]]]) -> None:
        try:
            for message, descriptors in messages:
                self._on_message(message, descriptors)
        except PeerError as error:
            if not isinstance(error, ChannelClosedError):
                log.error("the gateway sent a bad message and is ended: %s", error)
            self._hang_up()
            self._kill_at = time.monotonic() + END_S
        except Exception:
            self._hang_up()  # the loop no longer watches it
            raise

    def _on_message(self, message: Message, descriptors: tuple[int, ...]) -> None:
        match message:
            case Handover("tap") if self.state is GatewayState.STARTING and not self._port.exists:
                self._arrive(descriptors[0])
            case Handover("namespace") if self.state is GatewayState.STARTING and self._child is not None:
                self._child.takes_along(descriptors[0])
            case Reply(ok, result) if self.state is GatewayState.STARTING:
                why_not = confinement.refused(self._cells, result) if ok else result
                if why_not:
                    self._fail(why_not)
                    return
                self._to(GatewayEvent.READY)
                say("gateway", "the gateway serves", state="live")
                self._take_figures(message)
                self._kept.serves(result, self._options)
                self._has_served = True
                self._kill_at = float("inf")
                self._ask_at = time.monotonic()
            case Reply() if self._questions and self.state in SERVING:
                self._heard()
                self._questions.answered(message)
            case Command("remember", options):
                self._remember(options)
            case Command("owners", {"own": list(own), "leases": list(leases)}):
                self._port.own(own, leases)
            case Command() if self._requests is not None and self._requests.take(message):
                return
            case _:
                close_all(descriptors)
                raise PeerError(f"an unexpected {type(message).__name__}")

    def _remember(self, told: Mapping[str, object]) -> None:
        assert self._requests is not None
        options = remembered(self._options, told, self._requests.has_file)
        self._kept.say_changes(self._options, options, told.get("by"))
        self._options = options
        self._kept.keep(options)

    def _arrive(self, tap: int) -> None:
        try:
            table = self._port.arrive(tap)
        except LocalError as error:
            self.failure = str(error)
            self._hang_up()
            return
        self._say(Handover("stats", {}, 1), (table,))
        os.close(table)

    def _say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send the gateway, if it is there, a message without an answer."""
        if self._channel is not None:
            with suppress(ChannelClosedError):  # its last messages are still to be read
                self._channel.send(message, descriptors)

    def _fail(self, result: object) -> None:
        """Note the gateway's own line about why it cannot serve."""
        match result:
            case {"usage": str(why)}:
                self.failure, self._misused = why, True
            case _:
                self.failure = str(result)
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the channel, which ends the process."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._requests is not None:
            self._requests.close()
        self._questions.end("the gateway ended meanwhile; the log says why")

    def _ended(self) -> None:
        if self._child is None or self._child.runs:
            return
        if self._channel is not None:
            self._take(self._channel.last_words())  # the reason may be among them
        self._hang_up()
        how = self._child.reap()
        self._child = None
        self._kill_at = float("inf")
        self._port.detach(f"its gateway {how}")
        if self.state is GatewayState.OFF or not self._has_served:
            self._to(GatewayEvent.STOP)  # the caller of ``begin`` logs the reason
            return
        after = self._ends.lost(how, self.failure, time.monotonic())
        self._to(after.event)
        self._due = after.due
        say("gateway", after.text, after.level, state=after.state.value, reason=how)

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

The supervisor passes operators' commands on, and asks for the gateway's figures once a second
(``inquiries``). So it notices a gateway that hangs, shows it as silent and does not wait for it. A gateway
that hangs for long is replaced. ``port`` makes the port of the TAP; ``child`` is the process.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError, UsageError
from forwarder.future import Future
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
from supervisor.gateway.inquiries import Inquiries
from supervisor.gateway.kept import KeptAdditions, remembered
from supervisor.gateway.limited_channel import LimitedChannel
from supervisor.gateway.port import GatewayPort, PortHandler
from supervisor.gateway.requests import Requests
from supervisor.gateway.states import SERVING, GatewayEvent, GatewayState, GatewayStates
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
        self._saved = saved
        self._kept = KeptAdditions(saved)
        self._lease_file = os.path.join(runtime_dir, LEASES)
        self.states = GatewayStates()
        self.inquiries = Inquiries(self.states, self._send, self._announcements, self._pid)
        """For operators: its state and figures."""
        self.owners = self._port.owners
        self._options: dict[str, object] = {**options, "lease-file": self._lease_file}
        self._ends = Ends(Budget())
        self._first = child
        self._child: GatewayChild | None = None
        self._channel: LimitedChannel | None = None
        self._has_served = False
        self._due = float("inf")
        self._kill_at = float("inf")
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
        if stopping():
            return
        self._options = self._kept.restored(self._options)
        self._start()
        while self.states.now is GatewayState.STARTING and not stopping():
            turn()
        if self.states.now is not GatewayState.UP and not stopping():
            why = self.failure or "the gateway ended at once; the log says why"
            raise UsageError(why) if self._misused else LocalError(why)

    def took_over(self, records: Iterable[PortRecord]) -> None:
        """Detach the port of the gateway that ended with the supervisor before."""
        self._port.took_over(records)

    def _start(self) -> None:
        self._child, self._first = self._first or GatewayChild(), None
        self._child.watch(self._loop, self._ended)
        self.states.to(GatewayEvent.START)
        self._kill_at = time.monotonic() + START_S
        self.failure, self._misused = "", False
        self._channel = LimitedChannel(self._child.channel)
        self._channel.watch(self._loop, self._receive)
        self._requests = Requests(self._say, self._facts, self._options, self._port.name_of)
        self._announcements.begin()
        self._send(Command("serve", {**self._options, "again": self._has_served}))

    def ask(self, name: str, arguments: dict[str, object]) -> Future[Reply]:
        """Pass a command on. Raises LocalError if the gateway cannot answer."""
        self.inquiries.check()
        if self._requests is not None and "forward" in arguments:
            self._requests.expect(str(arguments["forward"]))
            arguments = {**arguments, "asked": self._kept.asked()}
        return self.inquiries.ask(Command(name, arguments))

    def view(self, port: PortView) -> PortView:
        """Return the state in which to show a port: the port of a gateway that hangs is silent."""
        if self.states.now is GatewayState.SILENT and self._port.is_port(port.record):
            return port._replace(state=self.states.now.value)
        return port

    def processes(self) -> tuple[tuple[str, Identity], ...]:
        """Return its processes by name."""
        return self._child.processes() if self._child is not None else ()

    def stop(self) -> None:
        """Begin to end the gateway; ``ended`` says when that is done."""
        self.states.to(GatewayEvent.STOP)
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
        if is_own and self.states.now in SERVING:
            say("gateway", "the gateway's port is gone, and the gateway with it", state="off")
            self.stop()

    def mend(self) -> list[SocketFile]:
        """Make sockets again whose files were deleted; return the files of all."""
        return self._requests.mend() if self._requests is not None and self.states.now in SERVING else []

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._channel is not None:
            self._channel.tick(now)
        if self.states.now in SERVING:
            self.inquiries.excuse(now)
            if self.inquiries.is_late(now):
                self._receive()
            if self.inquiries.tick(now):
                self._hang_up()
                self._kill_at = now
        if now >= self._kill_at and self._child is not None:
            self._kill_at = float("inf")
            if self.states.now is GatewayState.STARTING and not self.failure:
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
        resume_at = self._channel.deadline() if self._channel is not None else float("inf")
        return min(due, self.inquiries.deadline(), self._kill_at, resume_at)

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

    def _pid(self) -> int:
        return self._child.pid if self._child else 0

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
        is_starting = self.states.now is GatewayState.STARTING
        match message:
            case Handover("tap") if is_starting and not self._port.exists:
                self._arrive(descriptors[0])
            case Handover("namespace") if is_starting and self._child is not None:
                self._child.takes_along(descriptors[0], self._saved)
            case Reply() if is_starting:
                self._serves(message)
            case Reply() if self.states.now in SERVING and self.inquiries.answered(message):
                return
            case Command("remember", options):
                self._remember(options)
            case Command("owners", {"own": list(own), "leases": list(leases)}):
                self._port.own(own, leases)
            case Command() if self._requests is not None and self._requests.take(message):
                return
            case _:
                close_all(descriptors)
                raise PeerError(f"an unexpected {type(message).__name__}")

    def _serves(self, answer: Reply) -> None:
        """Take the answer to "serve"."""
        why_not = confinement.refused(self._cells, answer.result) if answer.ok else answer.result
        if why_not:
            self._fail(why_not)
            return
        self.states.to(GatewayEvent.READY)
        say("gateway", "the gateway serves", state="live")
        self.inquiries.begin(answer)
        self._kept.serves(answer.result, self._options)
        self._has_served = True
        self._kill_at = float("inf")

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

    def _send(self, command: Command) -> None:
        """Send a command; hang up if that is impossible, since its process has ended."""
        if self._channel is not None:
            try:
                self._channel.send(command)
            except ChannelClosedError:
                self._hang_up()

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
        self.inquiries.end("the gateway ended meanwhile; the log says why")

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
        if self.states.now is GatewayState.OFF or not self._has_served:
            self.states.to(GatewayEvent.STOP)  # the caller of ``begin`` logs the reason
            return
        after = self._ends.lost(how, self.failure, time.monotonic())
        self.states.to(after.event)
        self._due = after.due
        say("gateway", after.text, after.level, state=after.state.value, reason=how)

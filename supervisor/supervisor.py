"""One supervisor: its parts put together, the loop around them, the start, the stop and the end.

Theory of operation
-------------------
Everything runs in one thread, in one loop. ``PortManager`` handles ports, ``Console`` answers operators. A
turn of the loop makes the calls that are due and then sleeps until the next deadline, so an idle switch wakes
only for its beat. A callback or a part that fails is logged and does not end the process.

If the runtime directory belonged to a supervisor that died, ``start`` takes its workers over first
(``takeover``).

A stop ends listeners first, then workers, then sockets; a process that does not end gets signals
(``processes``).
"""

import os
import time

from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.names import Identity
from supervisor.attach import notifications
from supervisor.attach.notifications import Notifications
from supervisor.base import events, saved_state
from supervisor.base.events import EventLog
from supervisor.base.logs import Throttle, log, say
from supervisor.base.proc import start_time
from supervisor.base.runtime_dir import RuntimeDir
from supervisor.base.saved_state import SavedState
from supervisor.base.zmq_sockets import open_context
from supervisor.capture.recorder import NEEDS_GATEWAY, Recorder
from supervisor.capture.server import CaptureServer
from supervisor.console import history
from supervisor.console.commands import Commands
from supervisor.console.history import History
from supervisor.console.readings import Switch
from supervisor.console.server import Console
from supervisor.first_processes import FirstProcesses
from supervisor.gateway import child, kept
from supervisor.port_manager import PortManager
from supervisor.ports.in_force import Missing
from supervisor.run_options import RunOptions

STOP_S = 10.0
"""A process that is still there a second after SIGKILL hangs in a device; longer waiting is of no use."""
MEND_S = 5.0
"""How often to look, when the loop is awake anyway, whether the files of our sockets are still there.

Cleaners of temporary files run once a day."""
HEARD_S = 2.0
"""A new port is known to 250 workers on a busy machine sooner."""
FAILED_S = 0.1
"""Least sleep after a part has failed: it would fail again at once."""


class Supervisor:
    """One supervisor, from construction (nothing is attached yet) to ``close``."""

    def __init__(self, options: RunOptions, first: FirstProcesses = FirstProcesses()) -> None:  # noqa: B008 - a tuple
        """Take the runtime directory and open its sockets; ``first``: processes that have been started.

        Raises LocalError; nothing but these processes is left behind then.
        """
        self._context = open_context()
        self._options = options
        told = None if options.notification is None else notifications.parse(options.notification)
        self._directory = directory = RuntimeDir(options.runtime_dir)
        inherit = directory.predecessor is not None
        self._loop = Loop(lambda: log.exception("a callback failed and is dropped"))
        self._recorder: Recorder | None = None
        self._is_ready = False
        self._stop_at: float | None = None
        self._mend_at = 0.0
        self._taken: set[str] = set()
        """The paths of our sockets at which another process listens."""
        self._throttle = Throttle()
        self.events = EventLog(directory.file(events.FILE))
        """The events, for operators."""
        self._history = History(directory.file(history.FILE), inherit=inherit)
        try:
            self._saved = SavedState(directory.file(saved_state.FILE), inherit=inherit)
            self._ports = PortManager(
                self._loop,
                self._context,
                directory,
                options.gateway,
                cell_required=options.cell == "required",
                saved=self._saved,
                history=self._history,
                first=first,
            )
            path, workers = self._directory.path, self._ports.fleet.holders
            self._captures = CaptureServer(self._loop, self._ports.pauses, path, workers)
            commands = Commands(self, self._ports)
            self._console = Console(self._loop, self._context, self._directory.path, commands.handlers())
        except LocalError as error:
            self._context.destroy(linger=0)
            self._history.end(keep=inherit)
            self.events.end(keep=inherit)
            self._directory.close(keep_lock=inherit)
            raise LocalError(f"cannot open the sockets in {self._directory.path}: {error}") from None
        own = Identity(os.getpid(), start_time(os.getpid()))
        self._notifications = Notifications(told, self.events.kept())
        self._switch = Switch(self._directory.epoch, 0, time.monotonic(), own)

    @property
    def runtime_dir(self) -> str:
        """The runtime directory as an absolute path."""
        return self._directory.path

    @property
    def name(self) -> str:
        """The operator's name of this switch."""
        return self._options.name

    def start(self) -> list[str] | None:
        """Take over a predecessor's ports, then let VMs in; return the URLs, or None if a stop came first.

        Raises LocalError.
        """
        if self._directory.predecessor is not None:
            self._take_over(self._directory.predecessor.pid)
        self._ports.fleet.wait_for_cell(self._turn, self._stops)
        if self._options.gateway is not None and not self._stops():
            self._ports.gateway.begin(self._turn, self._stops)
            self._wait_until_heard()
        if self._options.pcap is not None and not self._stops():
            self._record(self._options.pcap)
        self._loop.turn(0.0)  # a signal that came meanwhile
        if self._stops():
            return None
        urls = self._open_all() + self._ports.kept.restore()
        self._ports.registry.reserve.open = True
        return urls

    def ready(self) -> None:
        """Say that the start is done."""
        self._is_ready = True
        say("ready", f"{self.name} is ready: VMs can attach")

    def run(self) -> bool:
        """Serve until ``stop`` has ended everything; return whether that happened in time."""
        while not self._finished():
            self._turn()
            if self._stop_at is not None and time.monotonic() > self._stop_at + STOP_S:
                log.error("%d workers did not end", len(self._ports.fleet))
                return False
        return True

    def stop(self) -> None:
        """Begin to end: let no VM in any more, and tell every worker to end."""
        if self._stop_at is None:
            now = self._stop_at = time.monotonic()
            log.info("stopping %d ports", self._ports.port_count())
            self._ports.stop(now)

    def give_up(self) -> None:
        """End what a start that has failed has made; ports of a predecessor are left to the next start."""
        if self._ports.orphans and self._directory.predecessor is None:
            self.stop()
            self.run()

    def watch(self, fd: int) -> None:
        """Stop as soon as ``fd`` is readable (signals arrive that way)."""
        self._loop.watch(fd, lambda _: self.stop())

    def close(self) -> None:
        """Close everything; workers that still serve a port, and their paths, are left to the next one.

        What a predecessor has left is there for the next one, too, if this start has failed.
        """
        has_failed = not self._is_ready and not self._stops()
        keep = self._ports.orphans or (has_failed and self._directory.predecessor is not None)
        self._console.close()
        self._captures.close()
        self._notifications.end()
        if self._recorder is not None:
            self._recorder.close()
        self._ports.close(keep=keep)
        self._context.term()
        self._loop.close()
        self._saved.close(keep=keep)
        self._history.end(keep=keep)
        self.events.end(keep=keep)
        self._directory.close(keep_lock=keep)

    def summary(self) -> Switch:
        """Return the fields that begin every answer to an operator."""
        return self._switch._replace(
            sequence=self._ports.fleet.publisher.log.sequence,
            cell=self._ports.fleet.cells.view(),
            others=self._ports.gateway.processes(),
        )

    def _turn(self) -> None:
        more = self._tick(time.monotonic())
        deadline = min(self._ports.deadline(), self._captures.deadline(), self._notifications.deadline())
        wait = 0.0 if more or self._finished() else deadline - time.monotonic()
        self._loop.turn(max(wait, FAILED_S) if self._ports.failed else wait)

    def _tick(self, now: float) -> bool:
        """Do what is due and handle messages that have arrived; return whether there may be more."""
        more = self._ports.tick(now)
        self._captures.tick(now)
        self._notifications.tick(now)
        if now >= self._mend_at and self._stop_at is None:
            self._mend_at = now + MEND_S
            self._mend()
        return (not self._ports.fleet.publisher.quiet and self._console.receive()) or more

    def _mend(self) -> None:
        """Make again what was deleted of the runtime directory, as cleaners of temporary files do."""
        try:
            happened = self._directory.mend()
        except LocalError as error:
            self._throttle.warning("mend", str(error))
            return
        if happened:
            log.warning("%s and is made again", happened)
        own = (self._console.mend(), self._captures.mend())
        files = (*own, *self._ports.listeners.mend(), *self._ports.gateway.mend())
        taken = {file.path for file in files if file.is_taken()}
        for path in sorted(taken - self._taken):
            log.warning("another process has taken %s: connections there do not reach this switch", path)
        self._taken = taken
        self._ports.fleet.watch.look_for_doors()

    def _stops(self) -> bool:
        return self._stop_at is not None

    def _finished(self) -> bool:
        return self._stops() and self._ports.ended

    def _record(self, file: str) -> None:
        """Begin to write what passes the gateway. Raises LocalError."""
        if self._options.gateway is None:
            raise LocalError(NEEDS_GATEWAY)
        self._recorder = Recorder(self._loop, file, self._directory.path, "gateway")
        self._recorder.begin(self._wait, lambda: self._stops() or self._captures.copies("gateway"))

    def _open_all(self) -> list[str]:
        try:
            return [self._ports.listeners.open(attachment) for attachment in self._options.attachments]
        except LocalError:
            self._notifications.tell("hypervisor_error")
            raise

    def _wait_until_heard(self) -> None:
        """Wait until VMs that are there already are heard by the new gateway, for ``HEARD_S`` at most.

        A guest that asks for its lease again, and is not heard, may ask a second time after minutes.
        """
        end = time.monotonic() + HEARD_S
        asked: Future[Missing] | None = None
        heard: list[Missing] = []
        while self._ports.port_count() > 1 and not heard and time.monotonic() < end and not self._stops():
            if asked is None and (asked := self._ports.gateway_heard()) is not None:
                asked.add_done_callback(heard.append)
            self._turn()

    def _wait(self, longest: float) -> None:
        """Take a turn that may last so long, before ``run``."""
        self._tick(time.monotonic())
        self._loop.turn(longest)

    def _take_over(self, predecessor: int) -> None:
        child.end_left_over(self._saved)
        self._ports.fleet.take_over(predecessor, self._wait)
        self._ports.gateway.took_over([port.record for port in self._ports.registry])
        if self._options.gateway is not None and self._saved.get(kept.PART) is None:
            self._ports.guard_all()

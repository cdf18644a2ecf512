"""What a gateway's process may ask of the supervisor, and how much of it.

Theory of operation. The gateway reads what guests send, so its process may be a guest's one day, and is in a
cell. It asks for what it cannot do itself; each request is something that the process could want in order to
carry what operators have asked for, and no more:

    ask        a fact of the switch (``facts``)
    listen     a listener of TCP or UDP on the host; or a unix socket that an operator has asked for
    unlisten   its file is to be removed
    log        a line, as many as ``LINES`` a second, without control characters
    lease      what became of a lease, as many again (``lease_events``)
    refused    what its cell has refused

A request that is none raises PeerError, which ends the gateway. Runs in the supervisor's loop.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from forwarder.channel import ChannelClosedError
from forwarder.errors import LocalError
from forwarder.messages import Command, Handover, Message, Reply
from forwarder.unix_sockets import SocketFile
from supervisor.base.allowance import Allowance
from supervisor.base.logs import LEVELS, Throttle, log
from supervisor.gateway.facts import Facts
from supervisor.gateway.kept import texts
from supervisor.gateway.lease_events import NameOf, say_lease
from supervisor.gateway.listening import Listenings, Place

LINES = 100
"""Log lines a second, and at one moment: a gateway at work logs a handful of kinds, each once a second."""
LONGEST_LINE = 2000
MOST_NAMED = 4096
"""Forwards of operators that are remembered for ``listen``: several for each there can be."""

Send = Callable[[Message, Sequence[int]], None]


class Requests:
    """The requests of one gateway's process."""

    def __init__(self, send: Send, facts: Facts, options: Mapping[str, object], name_of: NameOf) -> None:
        """Begin with what operators have asked for until now, by the ``options`` of the gateway."""
        self._send = send
        self._facts = facts
        self._has_api = bool(options.get("services"))
        """Whether there are clients that may ask for any unix socket."""
        named = [*texts(options.get("forward")), *texts(options.get("kept-forward"))]
        self._named: deque[str] = deque(named, MOST_NAMED)
        self._listenings = Listenings(self._may_name)
        self._name_of = name_of
        self._lines = Allowance(LINES, LINES, time.monotonic())
        self._lost_lines = 0
        self._leases = Allowance(LINES, LINES, time.monotonic())
        self._lost_leases = 0
        self._throttle = Throttle()

    def expect(self, forward: str) -> None:
        """Note that an operator asks for a forward."""
        self._named.append(forward)

    def has_file(self, forward: str) -> bool:
        """Whether the gateway listens at the unix socket of that forward."""
        return any(forward.startswith(f"unix:{path}:") for path in self._listenings.paths())

    def mend(self) -> list[SocketFile]:
        """Have the gateway ask again for sockets whose files were deleted; return the files of all."""
        for number, path in self._listenings.lost():
            log.warning("%s was deleted and is made again", path)
            with suppress(ChannelClosedError):
                why = f"{path} was deleted"
                self._send(Command("no_listener", {"number": number, "why": why}), ())
        return self._listenings.files()

    def take(self, request: Command) -> bool:
        """Do what is asked; False: it is no request of these. Raises PeerError."""
        match request:
            case Command("ask", {"what": str(what)}):
                self._tell(what)
            case Command("listen", {"number": int(number)} as place):
                self._listen(number, Place.read(place))
            case Command("unlisten", {"number": int(number)}):
                self._listenings.close(number)
            case Command("log", {"level": str(level), "text": str(text)}):
                self._log(level, text)
            case Command("lease", record):
                self._say_lease(record)
            case Command("refused", {"process": "gateway" | "namespace" as process} as counted):
                self._say_refused(str(process), counted)
            case _:
                return False
        return True

    def close(self) -> None:
        """Remove the files of all listeners: their process has ended, or is about to."""
        self._listenings.close_all()

    def _may_name(self, path: str) -> bool:
        if self._has_api:
            return True
        return any(forward.startswith(f"unix:{path}:") for forward in self._named)

    def _tell(self, what: str) -> None:
        fact = self._facts.get(what)
        reply = Reply(False, f"{what} is not known") if fact is None else Reply(True, fact())
        with suppress(ChannelClosedError):  # what it said before its end is still to be taken
            try:
                self._send(reply, ())
            except LocalError:
                why = f"{what}: too many to tell the gateway; `supervisor macs` has all"
                self._send(Reply(False, why), ())

    def _listen(self, number: int, place: Place) -> None:
        with suppress(ChannelClosedError):
            try:
                sock, port = self._listenings.open(number, place)
            except LocalError as error:
                self._send(Command("no_listener", {"number": number, "why": str(error)}), ())
                return
            with sock:
                self._send(Handover("listener", {"number": number, "port": port}, 1), (sock.fileno(),))

    def _log(self, level: str, text: str) -> None:
        if not self._lines.take(time.monotonic()):
            self._lost_lines += 1
            return
        self._lines.spend()
        if self._lost_lines:
            text += f" ({self._lost_lines} lines of the gateway were lost before this one)"
            self._lost_lines = 0
        log.log(LEVELS.get(level, LEVELS["warning"]), "%s", " ".join(text.split())[:LONGEST_LINE])

    def _say_lease(self, record: Mapping[str, object]) -> None:
        if not self._leases.take(time.monotonic()):
            self._lost_leases += 1
            return
        self._leases.spend()
        more, self._lost_leases = self._lost_leases, 0
        say_lease(record, more, self._name_of)

    def _say_refused(self, process: str, counted: Mapping[str, object]) -> None:
        subject = {"gateway": "the gateway", "namespace": "the gateway's namespace"}[process]
        self._throttle.warning(
            process,
            f"{subject}: its cell has refused {counted.get('count')} system calls, the last was number "
            f"{counted.get('last')}; a guest may have taken it over",
            "cell-refused",
        )

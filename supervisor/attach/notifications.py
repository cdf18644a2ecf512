"""Tell a program that was written for gvproxy what happens, as gvproxy's ``-notification`` does.

Theory of operation
-------------------
``Notifications`` receives every line of the log, and four kinds of events become messages:

    ready                    the switch serves
    connection_established   a VM has sent from a MAC address that no VM used before
    connection_closed        that VM has left; one message for each of its addresses
    hypervisor_error         a VM was refused, or a listener for VMs cannot be opened

For each message a connection is made to the program's socket, one line of JSON is sent, and the connection is
closed (gvproxy's ``pkg/notification/sender.go``):

    {"notification_type":"connection_established","mac_address":"52:54:00:12:34:56"}

After a takeover the kept events of the supervisor before tell which VM has which address (``kept``), so that
its end is told, too.

The socket does not block: a unix socket takes a connection and a line at once, or not at all. While the
program is slow to accept, up to ``MOST`` messages wait, and each is tried again every ``AGAIN_S``. If there
is no program, the message is dropped. The switch never waits.

Runs in the supervisor's loop.
"""

import errno
import json
import logging
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping

from forwarder.errors import LocalError
from forwarder.names import GATEWAY_MAC, format_mac
from supervisor.attach.addresses import path_in
from supervisor.base.logs import Throttle, log, record_of

MOST = 100
"""Messages that wait, as in gvproxy."""
AGAIN_S = 0.1


def parse(url: str) -> str:
    """Return the path in ``unix://PATH``, or the path alone. Raises LocalError."""
    path = path_in(url)
    if path is None:
        raise LocalError(f"{url!r} is no address for notifications; write it as unix:///PATH")
    return path


class Notifications(logging.Handler):
    """The messages of one switch; a handler of the log from construction to ``end``."""

    def __init__(self, path: str | None, kept: Iterable[Mapping[str, object]] = ()) -> None:
        """Send to the socket at ``path``, which need not be there yet; None: nothing is sent.

        ``kept``: earlier events, of which nothing is sent.
        """
        super().__init__(logging.INFO)
        self._path = path
        self._behind: dict[int, list[str]] = {}
        """The MAC addresses of each port."""
        self._waiting: deque[bytes] = deque()
        self._again_at = float("inf")
        self._throttle = Throttle()
        if path is not None:
            for event in kept:
                self._note(event)
            log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Send what an event means to gvproxy's clients."""
        for kind, mac in self._note(record_of(record)):
            self.tell(kind, mac)

    def _note(self, event: Mapping[str, object]) -> list[tuple[str, str]]:
        """Note the port of each address; return the messages."""
        match event:
            case {"event": "ready"}:
                return [("ready", "")]
            case {"event": "mac-new", "port": int(port), "mac": str(mac)} if mac != format_mac(GATEWAY_MAC):
                self._behind.setdefault(port, []).append(mac)
                return [("connection_established", mac)]
            case {"event": "mac-moved", "port": int(port), "former_port": int(before), "mac": str(mac)}:
                if mac in self._behind.get(before, []):
                    self._behind[before].remove(mac)
                    self._behind.setdefault(port, []).append(mac)
            case {"event": "attach", "port": int(port)}:
                self._behind.pop(port, None)  # of a port that was lost with the supervisor before
            case {"event": "gone", "port": int(port)}:
                return [("connection_closed", mac) for mac in self._behind.pop(port, [])]
            case {"event": "attach-refused"}:
                return [("hypervisor_error", "")]
        return []

    def tell(self, kind: str, mac: str = "") -> None:
        """Send a message, or keep it until the program accepts."""
        if self._path is None:
            return
        message = {"notification_type": kind} | ({"mac_address": mac} if mac else {})
        if len(self._waiting) >= MOST:
            text = f"{self._path} takes no notifications; one is dropped"
            self._throttle.warning("full", text, "notification")
            return
        self._waiting.append(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        self._send_all()

    def tick(self, now: float) -> None:
        """Try again what was not accepted."""
        if now >= self._again_at:
            self._send_all()

    def deadline(self) -> float:
        """When to call ``tick``, in monotonic seconds."""
        return self._again_at

    def end(self) -> None:
        """Stop receiving the log."""
        log.removeHandler(self)

    def _send_all(self) -> None:
        self._again_at = float("inf")
        while self._waiting:
            try:
                self._send(self._waiting[0])
            except BlockingIOError:
                self._again_at = time.monotonic() + AGAIN_S
                return
            except OSError as error:
                text = f"{self._path} gets no notification: {_why(error)}"
                self._throttle.warning("failed", text, "notification")
            self._waiting.popleft()

    def _send(self, line: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.connect(str(self._path))
            sock.send(line)  # a new connection has room for it


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return "no program listens there"
    return str(error.strerror).lower()

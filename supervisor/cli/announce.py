"""Telling the outside that the switch is ready: a line on stdout, a pid file, and systemd."""

import os
import socket
from contextlib import suppress

from forwarder.errors import LocalError


class PidFile:
    """A file with our process id, from construction to ``close``."""

    def __init__(self, path: str) -> None:
        """Write it. Raises LocalError."""
        self._path = os.path.abspath(path)
        self._text = f"{os.getpid()}\n"
        try:
            with open(self._path, "w", encoding="ascii") as file:
                file.write(self._text)
        except OSError as error:
            raise LocalError(
                f"cannot write pid file {self._path}: {error.strerror}; choose another"
            ) from None

    def close(self) -> None:
        """Remove it, unless it is somebody else's by now."""
        with suppress(OSError):
            with open(self._path, encoding="ascii") as file:
                own = file.read() == self._text
            if own:
                os.unlink(self._path)


def tell_systemd(state: str) -> None:
    """Pass ``state`` on (sd_notify(3)); without systemd, or where it does not listen, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)

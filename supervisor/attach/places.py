"""Save what the next supervisor cannot see in a descriptor: the device of a TAP's port, the file of a socket.

A worker brings a TAP's port back with its descriptor. The port may have another name than the operator gave
it, if that was taken; and the device may have another name, if it was moved into another network namespace.
So the words by which a device was attached are saved with its port.

The socket of a vfkit VM comes back with its path. Another file may lie there meanwhile, so device and inode
of its own file are saved.

    {"taps": [[3, 17, "bh0,netns=blue"]], "files": [["/run/v.sock", 26, 1234]]}      port 3, attachment 17
"""

from collections.abc import Iterable
from typing import Any

from forwarder.errors import LocalError
from forwarder.names import PortId
from forwarder.unix_sockets import SocketFile
from supervisor.attach.addresses import Tap, parse_tap
from supervisor.base.saved_state import SavedState

PART = "places"


class Places:
    """The devices and socket files of one switch."""

    def __init__(self, saved: SavedState) -> None:
        self._saved = saved

    def put(self, taps: Iterable[tuple[PortId, Tap]], files: Iterable[SocketFile]) -> None:
        """Save all that there are now."""
        devices = [[*port, tap.url.partition("://")[2]] for port, tap in taps]
        sockets = [[file.path, *file.identity] for file in files if file.identity is not None]
        self._saved.put(PART, {"taps": devices, "files": sockets})

    def tap(self, port: PortId) -> Tap | None:
        """Return the device of a port; None if it is not known."""
        for row in self._rows("taps"):
            match row:
                case [int(number), int(born), str(text)] if (number, born) == port:
                    try:
                        return parse_tap(text)
                    except LocalError:
                        return None
        return None

    def file(self, path: str) -> SocketFile | None:
        """Return the file that was bound at ``path``; None if it is not known."""
        for row in self._rows("files"):
            match row:
                case [str(known), int(device), int(inode)] if known == path:
                    return SocketFile(path, (device, inode))
        return None

    def _rows(self, name: str) -> list[Any]:
        whole = self._saved.get(PART)
        rows = whole.get(name) if isinstance(whole, dict) else None
        return rows if isinstance(rows, list) else []

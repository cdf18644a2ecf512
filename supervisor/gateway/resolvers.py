"""The addresses of the host's resolvers: resolv.conf(5), read again when it changes.

The gateway cannot open a file, so it is told. The file is looked at once a second (a call of the kernel's,
some microseconds) and read when it is another one than before: changed, replaced, or behind a link that leads
elsewhere now. A file that is missing, or names no server, means the resolver of this machine, as for the C
library. What is not a regular file is not read: a FIFO would have the supervisor wait.
"""

import os
import socket
import stat
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from forwarder.socket_address import Servers, SocketAddress, numeric
from supervisor.gateway.resolver_watch import ResolverWatch

PATH = Path("/etc/resolv.conf")
MOST = 3
"""The C library asks as many."""

MOST_BYTES = 1 << 16
"""Of the file: what is behind them is not read, since a huge file would have the supervisor wait."""

PORT = 53
HERE: tuple[SocketAddress, ...] = (("127.0.0.1", PORT),)
NONE_SAID = Servers(HERE)


def read(lines: Iterable[str]) -> Servers:
    """Return what the ``nameserver`` and ``options`` lines of a ``resolv.conf`` say."""
    found, by_tcp = [], False
    for line in lines:
        words = line.split() if line[:1].strip() else []  # a keyword begins its line (resolv.conf(5))
        by_tcp |= words[:1] == ["options"] and "use-vc" in words
        if words[:1] == ["nameserver"] and len(words) > 1:
            try:
                found.append(numeric(_address(words[1]), PORT))
            except (ValueError, OSError):
                continue  # nonsense: the C library skips it as well
    return Servers(tuple(found[:MOST]) or HERE, by_tcp)


def _address(text: str) -> str:
    """Return an address in its usual form. Raises ValueError, OSError."""
    try:
        return str(ip_address(text))
    except ValueError:  # the C library takes 127.1 and the like (inet_aton(3))
        return socket.inet_ntoa(socket.inet_aton(text))


class Resolvers:
    """Which servers are to be asked, best first."""

    def __init__(self, path: Path = PATH) -> None:
        self.watch = ResolverWatch()
        """Whether they answer."""
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._servers = NONE_SAID

    def servers(self) -> Servers:
        """Return those of now; there is one at least."""
        try:
            now = os.stat(self._path)
            seen = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            if not stat.S_ISREG(now.st_mode):
                self._seen, self._servers = seen, NONE_SAID
            elif seen != self._seen:
                with self._path.open("rb") as file:
                    text = file.read(MOST_BYTES).decode(errors="replace")
                self._servers = read(text.splitlines())
                self._seen = seen
        except OSError:
            self._seen, self._servers = None, NONE_SAID
        return self._servers

"""The addresses of the host's resolvers: resolv.conf(5), read again when it changes.

Each question checks the file first (one system call, some microseconds) and reads it if it has changed, was
replaced, or is behind a link that leads elsewhere now. A missing file, or one without a ``nameserver``, means
the resolver on this machine, as for the C library.
"""

import os
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

Server = tuple[str, int]
"""Address and port."""

PATH = Path("/etc/resolv.conf")
MOST = 3
"""The C library asks as many."""

HERE: tuple[Server, ...] = (("127.0.0.1", 53),)


def read(lines: Iterable[str]) -> tuple[Server, ...]:
    """Return (address, port) of the ``nameserver`` lines of a ``resolv.conf``."""
    found = []
    for line in lines:
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            try:
                found.append((str(ip_address(words[1])), 53))
            except ValueError:
                continue  # nonsense: the C library skips it as well
    return tuple(found[:MOST])


class Resolvers:
    """The resolvers to ask, best first."""

    def __init__(self, fixed: tuple[Server, ...] = (), path: Path = PATH) -> None:
        """Return ``fixed`` always, if there are any; else read the file at ``path``."""
        self._fixed = fixed
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._servers = HERE

    def servers(self) -> tuple[Server, ...]:
        """Return the present resolvers; there is at least one."""
        if self._fixed:
            return self._fixed
        try:
            now = os.stat(self._path)
            seen = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            if seen != self._seen:
                self._servers = read(self._path.read_text(errors="replace").splitlines()) or HERE
                self._seen = seen
        except OSError:
            self._seen, self._servers = None, HERE
        return self._servers

"""The port that the kernel chose for a process which listens on port 0 and does not say where."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LISTENS = "0A"


def tcp_port(pid: int) -> int | None:
    """Return the TCP port on which a process listens; None: on none (yet)."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and words[9] in inodes:
                return int(words[1].rpartition(":")[2], 16)
    return None

"""Commands run as an ordinary user, for tests that run as root.

The interpreter, the virtual environment and this tree may be in a directory that only root can enter, like
root's home. The command then gets a mount namespace of its own in which such a directory is an open one with
nothing in it but those three; no other process sees that.
"""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[3]


def as_user(uid: int, command: list[str]) -> list[str]:
    """Return a command that runs ``command`` as user ``uid``, with no group but that of the same number."""
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    needed = dict.fromkeys(Path(each).resolve() for each in (sys.base_prefix, sys.prefix, str(ROOT)))
    closed = {top: path for path in needed if (top := _closed(path)) is not None}
    lines = ["set -e"]
    for top, path in closed.items():
        lines += [
            f"exec 9<{shlex.quote(str(path))}",
            f"mount -t tmpfs -o mode=755 none {shlex.quote(str(top))}",
            f"mkdir -p {shlex.quote(str(path))}",
            f"mount --no-canonicalize --bind /proc/self/fd/9 {shlex.quote(str(path))}",
            "exec 9<&-",
        ]
    lines.append('exec "$@"')
    return ["unshare", "--mount", "sh", "-c", "\n".join(lines), "sh", *drop, *command]


def _closed(path: Path) -> Path | None:
    """Return the first directory on the way to ``path`` that only its owner can enter."""
    for each in reversed((path, *path.parents)):
        if not each.stat().st_mode & stat.S_IXOTH:
            return each
    return None

"""The cell of the page's process: what it may still do when requests come.

A page parses what strangers send, so it may one day run what one of them wants. It goes to the console, whose
commands it could give anyway, and it starts captures. It needs no other file than programs and the runtime
directory, and the captures that it starts inherit that: Landlock takes all other files away (homes, secrets),
all TCP besides the sockets that listen already, signals to others, and abstract sockets. It has no
capabilities, cannot be traced, and a filter refuses the calls that reach into other processes or change the
machine. ``_core/system/cell.h`` has the rest.
"""

import sys
import sysconfig
from pathlib import Path

import forwarder
from forwarder import _core
from forwarder.names import Cell

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/etc/localtime"),
    *("/etc/alternatives", "/proc", "/dev/null", "/dev/urandom"),
)
"""What programs read of a system; what is not there is left out."""


def readable(runtime_dir: str) -> list[str]:
    """Return the paths below which the process may read."""
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    ours = Path(forwarder.__file__).resolve().parent.parent
    ours_here = [str(ours)] if ours.name in ("site-packages", "dist-packages") else _rooms(ours)
    return list(dict.fromkeys([*SYSTEM, *prefixes, *libraries, *packages, *ours_here, runtime_dir]))


def _rooms(root: Path) -> list[str]:
    """Of a source tree, which may lie in a home."""
    return [str(root / name) for name in ("bulkhead.py", "forwarder", "supervisor", "workers", "gateway")]


def enter(runtime_dir: str) -> Cell:
    """Give up for good what the page does not need; there is one thread. Return what is in force."""
    parts, abi = _core.cell_restrict("web", readable(runtime_dir))
    return Cell((*parts, *_core.cell_filter("web")), abi)

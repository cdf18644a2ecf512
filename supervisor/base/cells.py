"""The cells of all processes: note what each says of its own, show it, and refuse processes without one.

A worker says what of its cell is in force before a VM is near it, so its word is good; so do the processes of
the gateway. Parts that the kernel does not have are named as missing, and the others still hold. With
``--cell required``, no process without all of them serves a VM.
"""

from forwarder._core import CELL_PARTS
from forwarder.errors import LocalError
from forwarder.names import Cell
from supervisor.base.logs import say

REMEDY = {
    "user": "it stayed root (is user 65534 mapped in this user namespace?)",
    "root": "an empty root directory needs user namespaces (user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns) or CAP_SYS_CHROOT",
    "privileges": "capabilities could not be dropped",
    "undumpable": "prctl PR_SET_DUMPABLE was refused",
    "landlock": "the kernel has no Landlock (Linux 5.13, `lsm=` with landlock)",
    "limits": "setrlimit was refused",
    "seccomp": "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)",
}
"""Part to the reason why it may be missing."""


class CellPolicy:
    """What is known of the cells of this switch's processes."""

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self.seen: Cell | None = None
        """Of the worker that became ready last; they are all of one kernel."""
        self._others: dict[str, Cell] = {}
        """Of the other processes, by what they are."""

    def note(self, cell: Cell) -> None:
        """Take what a worker says; it is logged when it is news."""
        if cell != self.seen:
            self.seen = cell
            _say("workers are", cell)

    def note_other(self, process: str, cell: Cell) -> None:
        """Take what another process says, ``the gateway`` for example."""
        if cell != self._others.get(process):
            self._others[process] = cell
            _say(f"{process} is", cell)

    def refuses(self, cell: Cell) -> str:
        """Return why a worker in this cell must not serve; empty if it may."""
        absent = missing(cell)
        return f"a cell is required, and it lacks {', '.join(absent)}" if self.required and absent else ""

    def check(self) -> None:
        """Raise LocalError if a cell is required and not possible here."""
        if not self.required:
            return
        if self.seen is None:
            raise LocalError("a cell is required, and no worker became ready; the log says why")
        absent = missing(self.seen)
        if absent:
            why = "; ".join(f"{part}: {REMEDY[part]}" for part in absent)
            raise LocalError(f"a cell is required, and it lacks {why}; or run with --cell auto")

    def view(self) -> dict[str, object]:
        """Return the cell's state for ``status``."""
        cell = self.seen
        return {
            "required": self.required,
            "in_force": list(cell.parts) if cell else [],
            "missing": missing(cell) if cell else list(CELL_PARTS),
            "landlock_abi": cell.landlock_abi if cell else 0,
            "others": {process: _plain(other) for process, other in self._others.items()},
        }


def missing(cell: Cell) -> list[str]:
    """Return the parts that are not in force."""
    return [part for part in CELL_PARTS if part not in cell.parts]


def _plain(cell: Cell) -> dict[str, object]:
    return {"in_force": list(cell.parts), "missing": missing(cell), "landlock_abi": cell.landlock_abi}


def _say(subject: str, cell: Cell) -> None:
    absent = missing(cell)
    words = ", ".join(_words(cell)) or "nothing"
    if absent:
        why = "; ".join(f"{part}: {REMEDY[part]}" for part in absent)
        say("cell", f"{subject} confined by {words}; missing: {why}", "warning", missing=list(absent))
    else:
        say("cell", f"{subject} confined by {words}")


def _words(cell: Cell) -> list[str]:
    return [f"{part} (ABI {cell.landlock_abi})" if part == "landlock" else part for part in cell.parts]

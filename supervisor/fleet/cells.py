"""The cells of workers: note which parts are in force, show them, and refuse a worker without a required one.

A worker reports the parts of its cell before it has a VM, so its report can be trusted. Parts that the kernel
lacks are named; the others are in force all the same. With ``--cell required`` no worker without all parts
serves a VM.
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
    """The cells of this switch's workers."""

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self.seen: Cell | None = None
        """The cell of the worker that became ready last; all workers run on one kernel."""

    def note(self, cell: Cell) -> None:
        """Note a worker's report; log it if it is new."""
        if cell == self.seen:
            return
        self.seen = cell
        absent = missing(cell)
        words = ", ".join(_words(cell)) or "nothing"
        if absent:
            why = "; ".join(f"{part}: {REMEDY[part]}" for part in absent)
            say("cell", f"workers are confined by {words}; missing: {why}", "warning", missing=list(absent))
        else:
            say("cell", f"workers are confined by {words}")

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
        }


def missing(cell: Cell) -> list[str]:
    """Return the parts that are not in force."""
    return [part for part in CELL_PARTS if part not in cell.parts]


def _words(cell: Cell) -> list[str]:
    return [f"{part} (ABI {cell.landlock_abi})" if part == "landlock" else part for part in cell.parts]

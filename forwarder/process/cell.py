"""A process enters its cell (``_core/system/cell.h``), and notices what has been refused to it since.

Called from the main thread, when the process has everything that takes a name: files, programs, listeners.
"""

import os

from forwarder import _core
from forwarder.errors import PeerError
from forwarder.names import Cell


def enter(kind: str) -> Cell:
    """Give up for good what a process of that kind does not need; there is one thread. Says what is in force.

    ``kind`` is one of ``gateway`` and ``namespace``. A worker starts threads between the two steps. Standard
    error goes where standard output goes (/dev/null) from now on: what is to be said is said over a channel.
    """
    for standard in (0, 2):
        os.dup2(1, standard)
    restricted, abi = _core.cell_restrict(kind)
    return Cell((*restricted, *_core.cell_filter(kind)), abi)


def plain(cell: Cell) -> dict[str, object]:
    """Return a cell as arguments of a message."""
    return {"parts": list(cell.parts), "landlock_abi": cell.landlock_abi}


def read(arguments: object) -> Cell:
    """Return the cell that ``plain`` wrote. Raises PeerError."""
    match arguments:
        case {"parts": list(parts), "landlock_abi": int(abi)} if all(
            each in _core.CELL_PARTS for each in parts
        ):
            return Cell(tuple(parts), abi)
    raise PeerError("a cell that is none")


class Refusals:
    """System calls that this process's cell has refused."""

    def __init__(self) -> None:
        self._known = 0

    def news(self) -> tuple[int, int] | None:
        """Return how many there were and the number of the last, if there are more than last time."""
        count, last = _core.cell_refused()
        if count == self._known:
            return None
        self._known = count
        return count, last

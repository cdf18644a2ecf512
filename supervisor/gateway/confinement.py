"""Note the cells of a gateway's processes, and refuse a gateway without the cells that the operator requires.

The gateway says what confines it before a guest is near its processes.
"""

from forwarder.errors import PeerError
from forwarder.process import cell
from supervisor.base.cells import CellPolicy


def refused(cells: CellPolicy, answer: object) -> str:
    """Note what a gateway that is ready says; return why it must not serve, or nothing. Raises PeerError."""
    match answer:
        case {"cells": {"gateway": gateway, "namespace": namespace}}:
            told = {"the gateway": cell.read(gateway), "the gateway's namespace": cell.read(namespace)}
        case _:
            raise PeerError("a gateway that does not say what confines it")
    why_not = ""
    for process, confined in told.items():
        cells.note_other(process, confined)
        why = cells.refuses(confined)
        why_not = why_not or (f"{process}: {why}; or run with --cell auto" if why else "")
    return why_not

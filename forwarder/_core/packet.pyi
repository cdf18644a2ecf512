"""Stub of what ``packet/`` has: lengths of frames, flows and early drop."""

from typing import Final

MIN_FRAME: Final[int]
MAX_FRAME: Final[int]
"""Frame lengths in bytes, Ethernet header included, FCS excluded."""

def flow_of(frame: bytes) -> int:
    """The label, 16 bits, of the flow that a frame belongs to."""

class EarlyDrop:
    """Early drop at one ring, by itself."""

    def __init__(self) -> None: ...
    def put(self, flow: int, size: int, half_full: bool) -> bool:
        """Put ``size`` bytes of a flow into a ring, half full or not; False if they are dropped."""

"""Stub of what ``offload/`` has: what a VM accepts undone, and frames that are finished, cut or inferred."""

from typing import Final

LARGEST_FRAME: Final[int]
"""Bytes of the longest frame that a VM with ``receive=large`` takes."""
LINK_BYTES: Final[int]
"""Bytes of headers in front of an IP packet, in the longest frame that a VM takes."""
TAKES_SUM: Final[int]
"""Bits of unfinished work that a VM accepts: a partial checksum (and its header), frames to be segmented."""
TAKES_TSO4: Final[int]
TAKES_TSO6: Final[int]
TAKES_ECN: Final[int]
TAKES_USO4: Final[int]
TAKES_USO6: Final[int]
TAKES_LARGE: Final[int]
"""The VM accepts finished frames of many segments, without a header."""

def finish_offload(data: bytes) -> list[bytes]:
    """Finish a frame as its ``virtio_net_hdr`` asks: return the frames to send instead, in order.

    Raises ValueError if the header makes no sense.
    """

def shorten_offload(data: bytes) -> bytes:
    """Remove the last segment of a frame behind its ``virtio_net_hdr``; empty if it has fewer than two."""

def infer_offload(frame: bytes, mtu: int) -> bytes:
    """The ``virtio_net_hdr`` for a frame that came without one: its checksums and length show what is undone.

    ``mtu``: bytes of the longest IP packet that is not to be cut.
    """

"""Stub of what ``shared/`` has: rings, doorbells, the MAC table, and the stats page of a port.

Descriptors that a ``*_create`` function returns belong to the caller. Those given to a class are borrowed:
their memory is mapped at once, and the caller may close them afterwards.
"""

from typing import Final

LAYOUT: Final[int]
"""Version of every shared-memory layout; two processes must agree on it before they share a ring."""
COUNTERS: Final[tuple[str, ...]]
"""The names of a port's counters, in the order of ``StatsPage.snapshot``."""
MAX_PORTS: Final[int]
"""Port numbers run from 1 to MAX_PORTS - 1."""

def doorbell_create() -> int:
    """A new bell: an eventfd that is always readable, to be waited for edge-triggered."""

def ring_create(size: int, src_port: int, src_epoch: int, dst_port: int, dst_epoch: int) -> tuple[int, int]:
    """A new unicast ring, two sealed memfds: what its producer writes, and its consumer's tail.

    ``size``: data bytes, a power of two. The producer maps its memory for writing; after that no process can.
    """

def flood_create(size: int, port: int, epoch: int) -> int:
    """A new flood ring as a sealed memfd; its writer maps it first, all later processes may only read."""

def stats_page_create() -> int:
    """A new statistics page of a port (counters and MAC table) as a sealed memfd."""

class StatsPage:
    """Read-only view of a port's stats page: the state that its worker published last."""

    def __init__(self, fd: int) -> None: ...
    def counters(self) -> dict[str, int]:
        """All counters by name, since the page was made (they outlive a worker)."""

    def at_boundary(self) -> bool:
        """Whether a stream's worker, if it is dead now, died at the end of a record in both directions.

        Only then can another worker go on with the stream.
        """

    def memory_gone(self) -> bool:
        """Whether a guest that shared its memory took it away, which ended the port's worker."""

    def published_at(self) -> float:
        """When the page's worker last published, in monotonic seconds; 0.0 if never.

        What is read afterwards is of that time or later.
        """

    def losses(self) -> list[tuple[int, int, int, int]]:
        """(peer port, its attachment, frames lost towards it, its floods lost here), non-zero rows only."""

    def sent(self) -> list[tuple[int, int]]:
        """(peer port, bytes of frames for it alone, those lost on the way included), non-zero rows only."""

    def dealings(self) -> list[tuple[int, int, int, float, int, float]]:
        """(peer port, its attachment, frames sent to it, when the last, bytes of the longest, when data).

        Without zeros. Times are monotonic seconds. The longest is of the frames that began a run. Data are
        frames other than ARP and neighbour discovery; 0.0: none.
        """

    def questions(self) -> list[tuple[bytes, bytes, float, float, int, int]]:
        """(sender, target, first, last, times, VLAN) of flooded ARP requests and neighbour solicitations.

        Answers, and questions to one port alone, are rows without a target: the sender says its address.
        Addresses have 16 bytes, IPv4 as ::ffff:a.b.c.d, zeros where nothing was said; times are monotonic
        seconds. Questions within five seconds of each other are one series, from ``first`` to ``last``. The
        VLAN is 0 without a tag.
        """

    def snapshot(self) -> bytes:
        """All counters in the order of ``COUNTERS``, 8 bytes each, in the machine's own byte order."""

    def macs(self, port: int) -> list[tuple[bytes, int, bool]]:
        """MAC addresses of ``port`` in the page's table: (address, seconds since seen, pinned).

        For the page's own port, these are the addresses behind its VM.
        """

    def port_of(self, mac: bytes) -> tuple[int, int]:
        """The port from which the page's worker last took a frame of ``mac`` (6 bytes), and its attachment.

        The port is 0 if it is unknown. The attachment is the epoch of the port's first worker.
        """

class Fdb:
    """A MAC table by itself. ``secret`` keys its hash."""

    def __init__(self, secret: int = 0) -> None: ...
    def learn(self, mac: bytes, port: int) -> bool:
        """False: refused (a group address, or pinned to another port)."""

    def pin(self, mac: bytes, port: int) -> bool: ...
    def lookup(self, mac: bytes) -> int:
        """The port, 0 if unknown."""

    def age(self, now: int) -> None: ...
    def forget(self, port: int) -> None: ...
    def count(self, port: int) -> int:
        """Entries of ``port``, including those that have aged out since the last change of generation."""

class RingWriter:
    """Producer's end of a ring."""

    broken: bool

    def __init__(
        self, ring: int, tail: int, src_port: int, src_epoch: int, dst_port: int, dst_epoch: int
    ) -> None: ...
    def put(self, records: bytes, src: bytes, vnet: bool = False) -> int:
        """Append one run of whole records; returns how many of its frames fitted.

        ``vnet``: each frame is behind a ``virtio_net_hdr``.
        """

    def commit(self, records: bytes, src: bytes, vnet: bool = False, gap: int = 0) -> int:
        """The same for records that were read in place, ``gap`` bytes behind the last run."""

    def publish(self) -> bool: ...

class RingReader:
    """Consumer's end of a ring."""

    broken: bool

    def __init__(
        self, ring: int, tail: int, src_port: int, src_epoch: int, dst_port: int, dst_epoch: int
    ) -> None: ...
    vnet: bool
    """Whether the frames of the last run taken have a ``virtio_net_hdr`` in front."""

    def take(self, most: int) -> bytes:
        """Consume at most ``most`` bytes of records, from one run."""

    def unread_frames(self) -> int: ...

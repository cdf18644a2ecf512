"""Stub of what ``relay/`` has: the connections and datagrams of the gateway."""

from typing import Final

SPLICE_PIPE_BYTES: Final[int]
"""What a direction moves at once."""
SPLICE_KEPT_PIPES: Final[int]
"""Empty pipes that are kept for the next connections."""
SPLICE_COPIED: Final[int]
"""Most bytes of a message that is copied instead of spliced."""
SPLICE_BULKY: Final[int]
"""Connections with more that a turn moves with their events, and again from its queue."""
SPLICE_LEAST_WINDOW: Final[int]
"""Least bound of a guest's window, in bytes."""
SPLICE_ANSWERED: Final[int]
SPLICE_JOINED: Final[int]
SPLICE_FAILED: Final[int]
SPLICE_OVER: Final[int]
SPLICE_LINGERS: Final[int]
SHED_SYN: Final[int]
SHED_FORGED: Final[int]

class Splices:
    """Connections of two sockets each, from the dial to the end (relay/splices.h, relay/dials.h).

    Its sockets do not block and belong to it. Addresses have 4 or 16 bytes.
    """

    def __init__(self) -> None: ...
    def watch(self, fd: int, bit: int, /) -> None:
        """Have ``wait`` return when the caller's descriptor is readable. Raises OSError."""

    def wait(self, until: float, /) -> tuple[int, list[tuple[int, int, int]]]:
        """Move what can be moved until something is to be told, or until then (monotonic, in seconds).

        Return the bits of the caller's readable descriptors, and what has become of connections: (number, one
        of SPLICE_ANSWERED, _JOINED, _FAILED, _OVER, _LINGERS, errno or 0). End one that has failed; one that
        lingers has an end that has failed: ask ``settle``; one that is over is forgotten.
        """

    def begin(self, near: int, is_unix: bool, /) -> int:
        """Begin a connection with this near end, or with none (-1); its number.

        Raises OSError, or ValueError after ``close``; the near end is closed then.
        """

    def connect(
        self, number: int, far: int, address: bytes, port: int, is_here: bool, options: bytes, /
    ) -> int:
        """Dial the far end, from a socket of the caller's or a new one (-1).

        0: it has answered; EINPROGRESS: a report will say; else why it failed. ``options`` are packed as
        ``forwarder.tcp_options`` does; ``is_here``: the address is this host's.
        """

    def join(self, number: int, near: int, /) -> None:
        """Give an answered connection its near end. Raises OSError: end it."""

    def accept(self, listener: int, with_own: bool, /) -> list[tuple[int, bytes, bytes]]:
        """Accept some clients: descriptor, the peer's address and port, and the own ones if asked for.

        Each is an address followed by 2 bytes of port, or empty (a unix socket). Raises OSError: none, for
        lack of descriptors or memory.
        """

    def sockets(self, number: int, /) -> tuple[int, int]:
        """The descriptors of both ends, which stay the connection's; -1: none."""

    def settle(self, number: int, /) -> int:
        """The errno to end a connection with whose end has failed; -1: the other has bytes to take."""

    def end(self, number: int, is_reset: bool, /) -> None:
        """End a connection and close its sockets; one that is over is ignored."""

    def lent(self) -> int:
        """How many pipes have bytes in them."""

    def close(self) -> None:
        """Reset all connections and close the pipes."""

class Datagrams:
    """Carry the relay's datagrams in batches, along ways that the relay has decided (relay/datagrams.h).

    Descriptors are borrowed. A socket is known from ``open`` to ``forget``, which makes all its ways void. A
    way lives for 10 seconds. Addresses have 4 or 16 bytes.
    """

    def __init__(self, network: bytes, mask: bytes, prefix: bytes, /) -> None:
        """``network`` and ``mask``: the LAN's IPv4 addresses; ``prefix``: 8 bytes of its IPv6 addresses."""

    def speak_by(self, tun: int, mtu: int, /) -> None:
        """Write datagrams for guests to this TUN device; ``mtu`` is the LAN's."""

    def open(self, fd: int, /) -> None:
        """Know a new socket; ways of an earlier socket with this number are void."""

    def forget(self, fd: int, /) -> None:
        """Carry no more datagrams from and to this socket."""

    def used(self, fd: int, /) -> float:
        """Return the monotonic time of the last datagram that the core sent by a socket; 0.0: none."""

    def from_guest(
        self,
        mac: bytes,
        source: bytes,
        destination: bytes,
        port: int,
        hops: int,
        keep: bool,
        fd: int,
        target: bytes,
        /,
    ) -> None:
        """Enter a way: send such datagrams of a guest through ``fd`` to ``target``, and keep their port."""

    def to_guest(self, fd: int, peer: bytes, asked: bytes, guest: bytes, port: int, /) -> None:
        """Enter a way: write datagrams of ``peer`` at ``fd`` for a guest's port, with source ``asked``."""

    def to_socket(
        self,
        fd: int,
        peer: bytes,
        peer_port: int,
        local: bytes,
        out: int,
        target: bytes,
        port: int,
        source: bytes,
        /,
    ) -> None:
        """Enter a way: send datagrams at ``fd`` from a peer to ``local`` (may be empty) through ``out``.

        ``target`` is empty if ``out`` is connected, ``source`` if it has only one address.
        """

    def read_frames(self, fd: int, /) -> tuple[int, int, list[bytes | tuple[bytes, bytes, int, bytes]]]:
        """Read frames of a packet socket; return the numbers of read and of carried frames, and the others.

        Each begins with its virtio_net_hdr. The first segment of a connection is read already: MAC address of
        its source, key (address and port of the source, and of the destination), hops, and the packet with
        its header for a TUN device. Raises BlockingIOError if there is none.
        """

    def read(
        self, fd: int, by_port: bool, /
    ) -> tuple[int, int, list[tuple[bytes, bytes, int, int, bytes, int]]]:
        """Read datagrams of a socket; return the same. ``by_port``: each port of a peer has its own way.

        A datagram is (data, peer, its port, its scope, the local address if the socket tells it, the bytes of
        each datagram in it if it holds several). Raises BlockingIOError if there is none, OSError for an
        error of the socket.
        """

    def shed(self, mac: bytes, kind: int, seconds: float, /) -> None:
        """Only count frames of a kind (SHED_SYN, SHED_FORGED) from ``mac``, for so many seconds."""

    def take_counts(self) -> tuple[int, int, int]:
        """Return the dropped datagrams, shed SYNs and shed forged packets since the last call."""

"""Options of the TCP sockets of relayed connections, and what the kernel tells of such a connection."""

import contextlib
import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

KEEPALIVE = (120, 30, 4)
"""Keepalive: seconds of silence, seconds between probes, probes. A vanished peer is noticed in four
minutes. With unacknowledged bytes the kernel's own limit applies, as to a direct connection. TCP_USER_TIMEOUT
is not set, since it would also end the connection of a reader that only pauses."""

PROBING = (1, 1, 120)
"""Keepalive while a peer is in doubt: a probe a second; ``departures`` decides."""

DATAGRAM_BYTES = 1 << 20
"""Of datagrams that wait to be read; the kernel may allow less."""

Option: TypeAlias = tuple[int, int, int | bytes]
"""Level, name and value of an option, as ``setsockopt`` takes them."""

_RESET_AT_CLOSE = struct.pack("=ii", 1, 0)
_RENO: Option = (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")

_INT = struct.Struct("=i")
_PACKED = struct.Struct("=iiI16s")
"""``struct dial_option`` of the core (forwarder/_core/relay/dials.h)."""

_UDP_GRO = 104

_LAST_ACK_RECEIVED = 56
"""Where ``struct tcp_info`` has the milliseconds since the peer's last acknowledgement (linux/tcp.h)."""


def forgo_pacing(sock: socket.socket) -> None:
    """Make a socket, and those that it accepts, use Reno, which every user may choose.

    Between sockets of one machine there is no bottleneck to find, and algorithms that pace (BBR) are slower.
    Set it before listen or connect: the kernel goes on pacing a connection that was made under BBR, by a
    timer for each segment, even with another algorithm later. One stream from host to VM where BBR is the
    default, MTU 65,520, five pairs of runs: set after connect 12.7 (12.1 to 14.8) Gbit/s, before 18.4 (18.0
    to 18.7).
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(*_RENO)


def of_a_connection(*, nearby: bool, own: bool = False) -> list[Option]:
    """Return the options of a relayed TCP socket.

    It sends small segments at once, probes silent peers, and keeps urgent data in the stream. If this process
    is killed, its peer sees a reset: the kernel would end the stream in good order, as if it were whole.
    ``nearby``: its packets never leave this machine. ``own``: its peer is a process of this host, whose end
    the kernel tells, so that no probe is needed.
    """
    options: list[Option] = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
        (socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE),
    ]
    if nearby:
        options.append(_RENO)
    if own:
        return options
    return [
        *options,
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *_probes(KEEPALIVE),
    ]


def packed(options: Sequence[Option]) -> bytes:
    """Return options as the core sets them before it connects (``Splices.connect``)."""
    values = (
        (level, name, value if isinstance(value, bytes) else _INT.pack(value))
        for level, name, value in options
    )
    return b"".join(_PACKED.pack(level, name, len(value), value) for level, name, value in values)


def tune(sock: socket.socket, *, nearby: bool) -> None:
    """Set these options at a listener, before it listens: what it accepts inherits them."""
    with contextlib.suppress(OSError):
        for option in of_a_connection(nearby=nearby):
            sock.setsockopt(*option)


def take_segments(sock: socket.socket) -> None:
    """Let a datagram socket give several datagrams as one message, and lengthen its queue.

    The kernel allows twice its limit (net.core.rmem_max): a hundred datagrams more.
    """
    with contextlib.suppress(OSError):  # an older kernel gives them one by one
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BYTES)


def ask_after(sock: socket.socket, times: tuple[int, int, int]) -> None:
    """Set when the kernel probes a silent peer (KEEPALIVE or PROBING)."""
    with contextlib.suppress(OSError):
        for option in _probes(times):
            sock.setsockopt(*option)


def silence_s(sock: socket.socket) -> float:
    """Return the seconds since the peer's last acknowledgement. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK_RECEIVED + 4)
    (milliseconds,) = struct.unpack_from("=I", info, _LAST_ACK_RECEIVED)
    return float(milliseconds) / 1000


def _probes(times: tuple[int, int, int]) -> list[Option]:
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    return [(socket.IPPROTO_TCP, name, value) for name, value in zip(names, times, strict=True)]

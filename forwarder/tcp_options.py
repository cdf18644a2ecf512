"""What TCP sockets of relayed connections are told, and what they can be asked."""

import contextlib
import socket
import struct

KEEPALIVE = (120, 30, 4)
"""Keepalive: seconds of silence, seconds between probes, probes. A vanished peer is noticed in four
minutes."""

USER_TIMEOUT_MS = 240_000
"""Seconds for unacknowledged bytes, to which keepalive does not apply."""

PROBING = (1, 1, 120)
"""Keepalive while a peer is in doubt: a probe a second; ``departures`` decides."""

DATAGRAM_BYTES = 1 << 20
"""Of datagrams that wait to be read; the kernel may allow less."""

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
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def tune(sock: socket.socket, *, nearby: bool, own: bool = False) -> None:
    """Set the options of a relayed TCP socket; sockets that a listener accepts inherit them.

    It sends small segments at once, probes silent peers, and keeps urgent data in the stream.
    ``nearby``: its packets never leave this machine. ``own``: its peer is a process of this host, whose end
    the kernel tells, so that no probe is needed. To be called before there is a connection.
    """
    if sock.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if nearby:
            forgo_pacing(sock)
        if own:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        ask_after(sock, KEEPALIVE)


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
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    with contextlib.suppress(OSError):
        for option, value in zip(options, times, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def silence_s(sock: socket.socket) -> float:
    """Return the seconds since the peer's last acknowledgement. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK_RECEIVED + 4)
    (milliseconds,) = struct.unpack_from("=I", info, _LAST_ACK_RECEIVED)
    return float(milliseconds) / 1000

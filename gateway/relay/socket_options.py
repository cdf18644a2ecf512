"""What sockets of relayed connections are told, and what they can be asked."""

import contextlib
import socket
import struct

KEEPALIVE = (120, 30, 4)
"""Seconds of silence, seconds between questions, questions: a peer that is gone is noticed in four
minutes."""

USER_TIMEOUT_MS = 240_000
"""The same for bytes under way, which no question is asked about."""

PROBING = (1, 1, 120)
"""The same while it is in doubt whether the peer is there: a question a second, and the asker decides."""

DATAGRAM_BYTES = 1 << 20
"""Of datagrams that wait to be read; the kernel may allow less."""

_UDP_GRO = 104

_LAST_ACK_RECEIVED = 56
"""Where ``struct tcp_info`` has the milliseconds since the peer's last acknowledgement (linux/tcp.h)."""


def forgo_pacing(sock: socket.socket) -> None:
    """Have a socket use Reno, which every user may choose, and what it accepts as well.

    Between sockets of one machine there is no bottleneck to find out about, and algorithms that pace what
    they send (BBR) lose by it. A socket that listens or is about to connect should be told: the kernel
    goes on pacing a connection that was made under BBR, by a timer for each segment, whatever it uses
    later. One stream from host to VM where BBR is the default, MTU 65,520, five pairs of runs: told when
    it was connected 12.7 (12.1 to 14.8) Gbit/s, told before 18.4 (18.0 to 18.7).
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def tune(sock: socket.socket, *, nearby: bool) -> None:
    """Set what a relayed TCP socket needs; what a listener accepts has it, too.

    It does not wait for more bytes, looks for peers that are gone, and keeps urgent data in the stream.
    ``nearby``: its packets never leave this machine. To be called before there is a connection.
    """
    if sock.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        ask_after(sock, KEEPALIVE)
        if nearby:
            forgo_pacing(sock)


def take_segments(sock: socket.socket) -> None:
    """Have a datagram socket give several that came together as one, and wait for its reader a little longer.

    The kernel allows twice what it says that it allows (net.core.rmem_max): a hundred datagrams more.
    """
    with contextlib.suppress(OSError):  # a kernel without it gives them one by one
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BYTES)


def ask_after(sock: socket.socket, times: tuple[int, int, int]) -> None:
    """Set when the kernel asks a silent peer whether it is there (KEEPALIVE or PROBING)."""
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    with contextlib.suppress(OSError):
        for option, value in zip(options, times, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def silence_s(sock: socket.socket) -> float:
    """Return how many seconds ago the peer acknowledged anything. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK_RECEIVED + 4)
    (milliseconds,) = struct.unpack_from("=I", info, _LAST_ACK_RECEIVED)
    return float(milliseconds) / 1000

"""Read the ICMP errors that the kernel queues for a datagram socket (ip(7)).

``watch`` makes a socket queue them, ``take`` reads one, ``ignore`` ends it. Each comes with the beginning of
the datagram that it is about, its destination, and the sender of the error.
"""

import errno
import socket
import struct
from typing import NamedTuple

from gateway.relay.policy import Address

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG = 10, 23, 62
_WANT, _DO = 1, 2
_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6 = 1, 2, 3
_QUOTED_BYTES = 2048
_DISCARD = 9

TIME_EXCEEDED = {4: 11, 6: 3}
PROHIBITED = {4: (3, 13), 6: (1, 1)}
TOO_BIG = {4: (3, 4), 6: (2, 0)}

# EADDRNOTAVAIL is none of them, but see ``or_no_way``: the host's ports are in use for a second or more, and
# the guest asks again.
_AS_ICMP = {
    4: {
        **dict.fromkeys((errno.ENETUNREACH, errno.ENETDOWN), (3, 0)),
        **dict.fromkeys((errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENONET), (3, 1)),
        errno.ENOPROTOOPT: (3, 2),
        **dict.fromkeys((errno.EACCES, errno.EPERM), PROHIBITED[4]),  # EPERM: the host's packet filter
    },
    6: {
        **dict.fromkeys((errno.ENETUNREACH, errno.ENETDOWN), (1, 0)),
        errno.EHOSTUNREACH: (1, 3),
        **dict.fromkeys((errno.EACCES, errno.EPERM), PROHIBITED[6]),
    },
}
"""The kernel makes these errnos of ICMP errors (icmp_err_convert, net/ipv4/icmp.c) and by its own rules."""


class SocketError(NamedTuple):
    """One error."""

    kind_and_code: tuple[int, int]
    info: int
    """With TOO_BIG the MTU, in the form of the error's own 32 bits."""
    peer: str
    """Address that the datagram was sent to."""
    port: int
    offender: str
    """The sender of the error; empty: this host."""
    data: bytes
    """The beginning of the sent datagram."""
    is_local: bool = False
    """Whether this host has refused to send: IPv4 then tells neither the port nor any of the datagram."""


def watch(sock: socket.socket) -> None:
    """Make a socket queue errors. Raises OSError."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def ignore(sock: socket.socket) -> None:
    """Make a socket queue no errors; those that wait are dropped. Raises OSError."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 0)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 0)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def set_way(sock: socket.socket, hops: int, *, keep: bool) -> None:
    """Set the hop limit and the don't-fragment bit of sent datagrams. Raises OSError."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DO if keep else _WANT)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _DO if keep else _WANT)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, keep)


def take(sock: socket.socket) -> SocketError | None:
    """Take the next error; None if ICMP has no such error. Raises BlockingIOError if there is none."""
    data, control, _, peer = sock.recvmsg(_QUOTED_BYTES, 512, socket.MSG_ERRQUEUE)
    version = 4 if sock.family == socket.AF_INET else 6
    for level, kind, value in control:
        if (level, kind) not in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
            continue
        number, origin, icmp_kind, code, _, info, _ = _ERROR.unpack_from(value)
        if origin == _ORIGIN_LOCAL:
            if number != errno.EMSGSIZE:
                return None
            return SocketError(TOO_BIG[version], info, peer[0], peer[1], "", data, is_local=True)
        if origin in (_ORIGIN_ICMP, _ORIGIN_ICMP6):
            offender = _address(value[_ERROR.size :])
            return SocketError((icmp_kind, code), info, peer[0], peer[1], offender, data)
    return None


def as_icmp(error: int, version: int) -> tuple[int, int] | None:
    """Return the ICMP error for an errno of this host's call, if there is one."""
    return _AS_ICMP[version].get(error)


def or_no_way(error: int, target: Address) -> int:
    """Return ``error``, or ENETUNREACH if this host has no address from which it could reach ``target``.

    Linux says EADDRNOTAVAIL for that, too: IPv6 is disabled, for example, or an interface has no address yet.
    """
    if error != errno.EADDRNOTAVAIL:
        return error
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(target), _DISCARD))
    except OSError as failure:
        return errno.ENETUNREACH if failure.errno == error else error
    return error


def _address(data: bytes) -> str:
    """Read the address of a ``sockaddr`` of either family."""
    (family,) = struct.unpack_from("=H", data)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, data[4:8])
    return socket.inet_ntop(family, data[8:24]) if family == socket.AF_INET6 else ""

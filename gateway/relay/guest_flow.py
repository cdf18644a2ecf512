"""One flow of a guest's datagrams to the outside: its socket on the host, and the addresses that may answer.

``nat`` makes flows and moves their datagrams; ``flow_context`` decides when a flow ends.
"""

import socket

from gateway.relay import socket_errors
from gateway.relay.flow_context import Common

UDP, PING = "udp", "ping"

GuestKey = tuple[str, bytes, bytes, int]
"""Kind; the guest's Ethernet and IP addresses; its port, or the identifier of its echoes."""

_NO_WAY = (0, False)


class GuestFlow:
    """One guest's address and port (or echo identifier), and its socket on the host."""

    __slots__ = (
        "_core",
        "_poller",
        "has_left",
        "hears_errors",
        "ident",
        "is_echo",
        "key",
        "mac",
        "peers",
        "sock",
        "source",
        "version",
        "way",
    )

    def __init__(self, common: Common, key: GuestKey, sock: socket.socket) -> None:
        self._poller, self._core = common.poller, common.core
        self.key = key
        self.sock = sock
        kind, self.mac, self.source, self.ident = key
        self.is_echo = kind == PING
        self.version = 4 if len(self.source) == 4 else 6
        self.peers: dict[bytes, bytes] = {}
        """Each with the address that the guest has asked for, which may be the host alias."""
        self.way = _NO_WAY
        self.has_left = False
        """Whether its port has left; its VM may be behind another port."""
        self.hears_errors = True
        self._core.open(sock.fileno())

    def hear_errors(self, *, hear: bool) -> None:
        """Read errors of the socket from now on, or have the kernel drop them."""
        self.hears_errors = hear
        (socket_errors.watch if hear else socket_errors.ignore)(self.sock)

    def used(self) -> float:
        """Return when the core last sent one of its datagrams."""
        return self._core.used(self.sock.fileno())

    def go(self, hops: int, *, keep: bool) -> None:
        """Set the hop limit and the don't-fragment bit of later datagrams. Raises OSError."""
        self.way = (hops, keep)
        socket_errors.set_way(self.sock, hops - 1, keep=keep)
        self.forget_ways()  # those that were entered before would use the new options, too

    def forget_ways(self) -> None:
        """Judge the next datagrams of both directions again."""
        self._core.forget(self.sock.fileno())
        self._core.open(self.sock.fileno())

    def close(self) -> None:
        """End the flow."""
        self._poller.unwatch(self.sock.fileno())
        self._core.forget(self.sock.fileno())
        self.sock.close()

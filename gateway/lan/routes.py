"""The routes of this host for IPv6, by a file that stays open: in its cell the gateway opens none."""

import os
from contextlib import suppress

from gateway.lan.announce import has_default_route

ROUTES_BYTES = 1 << 16
"""Of the routes, read at a time."""


class RouteTable:
    """The table of this host."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/net/ipv6_route", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without IPv6
            self._file = -1

    def has_way_out(self) -> bool:
        """Whether there is a default route."""
        text = b""
        with suppress(OSError):
            while more := os.pread(self._file, ROUTES_BYTES, len(text)):
                text += more
        return has_default_route(text.decode(errors="replace"))

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)

"""The host's resolvers, as the host's own programs find them."""

from collections.abc import Iterable
from ipaddress import ip_address

MOST = 3
"""As many as the C library asks."""


def read(lines: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return (address, port) of the ``nameserver`` lines of a ``resolv.conf``."""
    found = []
    for line in lines:
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            try:
                found.append((str(ip_address(words[1])), 53))
            except ValueError:
                continue  # nonsense: the C library skips it as well
    return tuple(found[:MOST])

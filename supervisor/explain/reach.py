"""Does this host itself reach a far end, and know its name? What stops this host stops VMs, too.

The gateway connects from here. VMs ask the resolvers of this host.
"""

import errno
import socket
import threading
from typing import Any

WAIT_S = 2.0
"""A far end that is there answers within a round trip; a firewall that drops never does."""

ANY_PORT = 9
"""A route leads to all ports."""

WAYS = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
}


def look_up(name: str, wait_s: float = WAIT_S) -> dict[str, Any]:
    """Return the ``address`` of a name, or ``why`` it is not known; the C library itself waits longer."""
    found: dict[str, Any] = {"why": f"no answer within {wait_s:g} s"}

    def ask() -> None:
        try:
            found["address"] = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]
        except (OSError, UnicodeError) as error:
            found["why"] = str(getattr(error, "strerror", None) or error).lower()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(wait_s)
    return dict(found)


def reach(address: str, port: int | None, wait_s: float = WAIT_S) -> dict[str, Any]:
    """Return ``way``, "open" or the kind of failure, and ``why`` in the kernel's words.

    Without a port nothing is sent: the kernel is asked for a route; {} if it has one.
    """
    try:
        if port is None:
            return _look_for_route(address)
        with socket.create_connection((address, port), wait_s):
            return {"way": "open", "why": "it accepts connections"}
    except TimeoutError:
        return {"way": "timeout", "why": f"no answer within {wait_s:g} s"}
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return {"way": WAYS.get(error.errno or 0, "failed"), "why": why}


def _look_for_route(address: str) -> dict[str, Any]:
    """Raise OSError if this host has no route: a datagram socket is connected without a datagram."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, ANY_PORT))
    return {}

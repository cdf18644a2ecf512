"""Does this host itself reach a far end? The gateway connects from here, so what stops it stops VMs, too."""

import errno
import socket
from typing import Any

WAIT_S = 2.0
"""A far end that is there answers within a round trip; a firewall that drops never does."""

WAYS = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
}


def reach(address: str, port: int, wait_s: float = WAIT_S) -> dict[str, Any]:
    """Return ``way``, "open" or the kind of failure, and ``why`` in the kernel's words."""
    try:
        with socket.create_connection((address, port), wait_s):
            return {"way": "open", "why": "it accepts connections"}
    except TimeoutError:
        return {"way": "timeout", "why": f"no answer within {wait_s:g} s"}
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return {"way": WAYS.get(error.errno or 0, "failed"), "why": why}

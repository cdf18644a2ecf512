"""Shared by all listeners: the interface to the port manager, socket buffers, and the descriptor budget."""

import os
import resource
import select
import socket
from typing import Protocol

from forwarder.errors import LocalError
from forwarder.names import PortId, PortRecord
from forwarder.vhost_session import MOST_REGIONS, RINGS
from supervisor.attach.addresses import PortOptions
from supervisor.base.logs import Throttle

SEND_BUFFER = 1 << 20
RECEIVE_BUFFER = 4 << 20
"""Socket buffers; the kernel's limits may reduce them. 1 MiB towards the VM holds some 900 frames of 1514
bytes; more would only add delay. The other direction holds a burst of a VM."""

PER_PORT = 8
"""Descriptors that a port costs the supervisor: the VM's, doorbell, stats page and flood ring, the pidfd of
its worker, and the worker's three connections. Most of them come later than the VM."""

VHOST_DESCRIPTORS = MOST_REGIONS + 2 * RINGS + 1
"""Further descriptors of a vhost-user port, at most: its memory, both ends of each ring, the back channel."""

RESERVED = 96
"""Descriptors reserved for our own sockets, spare workers and operators. libzmq 4.3 aborts the process if it
cannot accept a connection for lack of a descriptor, so VMs are refused long before that."""

RLIMIT_WANTED = 16 * 1024
"""Enough for every possible port, with its channel, doorbell, stats page, flood ring and pidfd."""

DESCRIPTOR_TABLE = RESERVED + 250 * PER_PORT
"""Room from the start for those of a large switch; a VM that arrives would wait for more room."""


class VmHandler(Protocol):
    """The part that makes ports for VMs and knows them; called from the loop."""

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        """Make a port of a VM's descriptor, which the owner closes then.

        Raises LocalError if this VM is to be refused; the descriptor stays the caller's.
        """

    def gone(self, port: PortId, reason: str) -> None:
        """Note that the VM of a port has gone; its worker may not see it."""

    def current(self, port: PortId) -> PortRecord | None:
        """Return a port as it is now; None if it has gone."""

    def port_count(self) -> int:
        """Return how many ports there are."""


def warn_refused(throttle: Throttle, url: str, what: str, why: object, kind: str = "refused") -> None:
    """Log that ``what`` was refused at ``url``, as one of the throttled lines of its ``kind``."""
    throttle.warning(kind, f"{url}: {what} was refused: {why}", "attach-refused", url=url, reason=str(why))


def ask_for_buffers(sock: socket.socket) -> None:
    """Set the buffers of a VM's link."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def hung_up(vm: int, kind: str) -> bool:
    """Whether a connected VM has gone and nothing is left to read; always False for datagrams and TAPs."""
    if kind not in ("stream", "stream16", "seqpacket", "vhost"):
        return False
    poll = select.poll()
    poll.register(vm, select.POLLIN | select.POLLRDHUP)
    events = dict(poll.poll(0)).get(vm, 0)
    if not events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
        return False
    sock = socket.socket(fileno=os.dup(vm))
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True
    finally:
        sock.close()


def check_room(ports: int, listening: int) -> None:
    """Raise LocalError if the descriptor limit has no room for another port beside that many.

    ``listening``: descriptors that listeners may have open themselves.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = (ports + 1) * PER_PORT + listening + RESERVED
    if soft != resource.RLIM_INFINITY and needed > soft:
        raise LocalError(
            f"descriptor limit reached: {ports} ports are all that {soft} are enough for; "
            "raise it (ulimit -n), or detach a port"
        )


def free_name(name: str | None, taken: set[str]) -> str | None:
    """Return ``name``, or the first free one of ``name-2``, ``name-3`` and so on."""
    if name is None or name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"

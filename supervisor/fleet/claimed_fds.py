"""Check the descriptors that come with a worker's claim: each has to be of the right kind.

A claim comes from another process. Its descriptors are kept while the port lives, given to later workers and,
for a vfkit VM, listened on. So all five are checked before anything changes. The engines that map a flood
ring check its contents.
"""

import fcntl
import os
import socket
import stat

from forwarder import _core
from forwarder.errors import PeerError
from forwarder.names import TRANSPORT_KIND, PortRecord

_INET = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
_SOCKETS = {
    "stream": (_INET, socket.SOCK_STREAM),
    "stream16": ((socket.AF_UNIX,), socket.SOCK_STREAM),
    "seqpacket": ((socket.AF_UNIX,), socket.SOCK_SEQPACKET),
    "dgram": ((socket.AF_UNIX,), socket.SOCK_DGRAM),
    "vhost": ((socket.AF_UNIX,), socket.SOCK_STREAM),
}
"""Address families and socket type of each kind of link; the remaining kind is a TAP."""

_TUN = os.makedev(10, 200)
"""The device number of /dev/net/tun (kernel: Documentation/admin-guide/devices.txt)."""

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def check(record: PortRecord, descriptors: tuple[int, ...], flood_doorbell: int) -> None:
    """Raise PeerError if one of a claim's descriptors is of the wrong kind.

    ``flood_doorbell`` is the one that all workers sleep on; the claim has to bring the same. -1: none yet.
    """
    vm, doorbell, claimed_flood_doorbell, stats, flood = descriptors
    try:
        _check_vm(vm, TRANSPORT_KIND[record.transport])
        for bell in (doorbell, claimed_flood_doorbell):
            _eventfd(bell)
        if flood_doorbell >= 0 and _eventfd(claimed_flood_doorbell) != _eventfd(flood_doorbell):
            raise PeerError("its flood doorbell is not that of the other workers")
        _core.StatsPage(stats).counters()
        if fcntl.fcntl(flood, fcntl.F_GET_SEALS) & _SIZE_SEALS != _SIZE_SEALS:
            raise PeerError("its flood ring is not sealed")
    except (OSError, ValueError, MemoryError) as error:
        raise PeerError(f"one of its descriptors is of the wrong kind: {error}") from None


def _check_vm(vm: int, kind: str) -> None:
    found = os.fstat(vm)
    if kind not in _SOCKETS:
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _TUN:
            raise PeerError("its VM's descriptor is not a TAP device")
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise PeerError("its VM's descriptor is not a socket")
    families, type_ = _SOCKETS[kind]
    with socket.socket(fileno=os.dup(vm)) as sock:
        if sock.family not in families or sock.type != type_:
            raise PeerError(f"its VM's socket is not that of a {kind} link")


def _eventfd(fd: int) -> bytes:
    """Return the kernel's number of an eventfd. Raises PeerError if ``fd`` is not one."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"eventfd-id:"):
                return line.split()[1]
    raise PeerError("its doorbell is not an eventfd")

"""Store duplicates of each port's descriptors, so that they outlive its worker and the next one can go on.

For each port: the VM's descriptor, the doorbell, the stats page, and the flood ring of the present epoch.
Doorbell and stats page live as long as the port. The worker of a vhost-user VM also sends its session
whenever it changes: the VM's memory and both ends of its rings, which are never mapped here. A flood ring
never gets a second writer, so each new worker gets a new one (``flood_moves`` has the other reason). Unicast
rings are not stored: both ends have them mapped, and a new worker asks for new ones. The whole switch has one
flood doorbell; after a takeover it is the one that the workers already sleep on.

A reserved port (``reserve``) has only a flood ring, with a second, read-only descriptor for the others until
its worker has sealed it.

Only this store closes these descriptors; a worker has duplicates, which it got with a message.
"""

import fcntl
import os
import socket
import sys
import termios
from typing import NamedTuple

from forwarder import _core
from forwarder.channel import close_all
from forwarder.errors import LocalError, shortage
from forwarder.messages import KeepSession
from forwarder.names import (
    FLOOD_BYTES,
    LARGE_RING_BYTES,
    RING_BYTES,
    TRANSPORT_KIND,
    Incarnation,
    PortRecord,
)
from supervisor.base import tcp_peer


class PortFds:
    """The descriptors of one port."""

    __slots__ = ("doorbell", "flood", "flood_epoch", "kept", "kept_fds", "stats", "vm")

    def __init__(self, vm: int, doorbell: int, stats: int, flood: int = -1, flood_epoch: int = 0) -> None:
        self.vm = vm
        self.doorbell = doorbell
        self.stats = stats
        self.flood = flood
        self.flood_epoch = flood_epoch
        """The epoch whose worker writes ``flood``; 0 and -1 before the first."""
        self.kept: KeepSession | None = None
        self.kept_fds: tuple[int, ...] = ()
        """The last state of a vhost-user session, for the next worker."""


class ReservedRing(NamedTuple):
    """The flood ring of a port whose VM is still to come, or whose worker does not forward yet."""

    epoch: int
    writing: int
    """For its worker; -1 when that has it."""
    reading: int
    """The same memory, read-only, for all others: the ring is sealed only when its worker maps it."""


class FdStore:
    """The descriptors of all ports."""

    def __init__(self) -> None:
        self._ports: dict[int, PortFds] = {}
        self._reserved: dict[int, ReservedRing] = {}
        self._flood_doorbell = -1

    def take(self, port: int, vm: int) -> None:
        """Take a VM's descriptor for a new port.

        Raises LocalError; the descriptor stays the caller's then.
        """
        made: list[int] = []
        try:
            made.append(_core.doorbell_create())
            made.append(_core.stats_page_create())
        except (OSError, MemoryError) as error:
            close_all(made)
            raise LocalError(_shortage(error)) from None
        self._ports[port] = PortFds(vm, *made)

    def reserve(self, port: Incarnation) -> None:
        """Make the flood ring of a port before its VM comes. Raises LocalError."""
        made: tuple[int, ...] = ()
        try:
            made = (_core.flood_create(FLOOD_BYTES, *port),)
            made += (_read_only(made[0]),)
        except (OSError, MemoryError) as error:
            close_all(made)
            raise LocalError(_shortage(error)) from None
        self.sealed(port.port)
        self._reserved[port.port] = ReservedRing(port.epoch, *made)

    def flood(self, port: Incarnation) -> int | None:
        """Return the flood ring of a port, for others to read; None: it has none under that epoch."""
        reserved, held = self._reserved.get(port.port), self._ports.get(port.port)
        if reserved is not None and reserved.epoch == port.epoch:
            return reserved.reading
        return held.flood if held is not None and held.flood_epoch == port.epoch else None

    def sealed(self, port: int) -> None:
        """Forget that a port was reserved: its worker has sealed the ring, or it is not needed any more."""
        ring = self._reserved.pop(port, None)
        if ring is not None:
            close_all([fd for fd in (ring.writing, ring.reading) if fd >= 0])

    @property
    def flood_doorbell(self) -> int:
        """The doorbell that all workers sleep on; -1 before there is one."""
        return self._flood_doorbell

    def adopt(self, record: PortRecord, descriptors: tuple[int, ...]) -> None:
        """Take all descriptors of a port from the worker that claims it."""
        vm, doorbell, flood_doorbell, stats, flood = descriptors
        if self._flood_doorbell < 0:
            self._flood_doorbell = flood_doorbell
        else:
            os.close(flood_doorbell)
        self._ports[record.port] = PortFds(vm, doorbell, stats, flood, record.epoch)

    def for_worker(self, wanted: Incarnation) -> tuple[int, int, int, int, int]:
        """Return the descriptors for a new worker: vm, doorbell, flood doorbell, stats page, flood ring.

        Raises LocalError when out of descriptors or memory.
        """
        held = self._ports[wanted.port]
        try:
            if self._flood_doorbell < 0:
                self._flood_doorbell = _core.doorbell_create()
            if held.flood_epoch != wanted.epoch:
                flood = self._first_ring(wanted)
                close_all([held.flood] if held.flood >= 0 else [])
                held.flood, held.flood_epoch = flood, wanted.epoch
        except (OSError, MemoryError) as error:
            raise LocalError(_shortage(error)) from None
        return held.vm, held.doorbell, self._flood_doorbell, held.stats, held.flood

    def replace_flood(self, moved: Incarnation, flood: int) -> None:
        """Take the ring to which a worker has moved its port's floods."""
        held = self._ports[moved.port]
        close_all((held.flood,))
        held.flood, held.flood_epoch = flood, moved.epoch

    def keep(self, port: int, message: KeepSession, descriptors: tuple[int, ...]) -> None:
        """Store a worker's session and its descriptors, to close later, in place of the ones before."""
        held = self._ports.get(port)
        if held is None or (held.kept is not None and message.number < held.kept.number):
            close_all(descriptors)
            return
        close_all(held.kept_fds)
        held.kept, held.kept_fds = message, descriptors

    def memory_gone(self, port: int) -> bool:
        """Whether the port's VM shared its memory and took it away, which killed its worker."""
        held = self._ports.get(port)
        try:
            return held is not None and _core.StatsPage(held.stats).memory_gone()
        except (OSError, MemoryError):
            return False

    def unread(self, port: int) -> bool:
        """Whether the socket of a port's VM holds unread bytes of the VM."""
        held = self._ports.get(port)
        if held is None:
            return False
        size = bytearray(4)
        fcntl.ioctl(held.vm, termios.FIONREAD, size)
        return any(size)

    def waiting(self, port: int) -> int:
        """Return the bytes, as the kernel counts them, that a port's VM has not read from its socket yet.

        0 for devices and for what is not known, as on another machine.
        """
        held = self._ports.get(port)
        if held is None:
            return 0
        size = bytearray(4)
        try:
            fcntl.ioctl(held.vm, termios.TIOCOUTQ, size)
        except OSError:
            return 0
        return int.from_bytes(size, sys.byteorder) + _unread_by_tcp(held.vm)

    def position_known(self, port: int) -> bool:
        """Whether the link of a dead worker's port is known to stand between two frames both ways."""
        held = self._ports.get(port)
        try:
            return held is not None and _core.StatsPage(held.stats).at_boundary()
        except (OSError, MemoryError):
            return False

    def get(self, port: int) -> PortFds | None:
        """Return the descriptors of a port."""
        return self._ports.get(port)

    def release(self, port: int) -> None:
        """Close everything of a port; it must have no worker any more."""
        held = self._ports.pop(port, None)
        if held is not None:
            close_all([held.vm, held.doorbell, held.stats, *held.kept_fds])
            close_all([held.flood] if held.flood >= 0 else [])
        self.sealed(port)

    def close(self) -> None:
        """Close everything."""
        for port in list(self._ports):
            self.release(port)
        for port in list(self._reserved):
            self.sealed(port)
        if self._flood_doorbell >= 0:
            os.close(self._flood_doorbell)
            self._flood_doorbell = -1

    def _first_ring(self, wanted: Incarnation) -> int:
        """Return the ring that was made when the port was reserved, or another one."""
        ring = self._reserved.get(wanted.port)
        if ring is None or ring.epoch != wanted.epoch or ring.writing < 0:
            return _core.flood_create(FLOOD_BYTES, *wanted)
        self._reserved[wanted.port] = ring._replace(writing=-1)
        return ring.writing


F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h; Python's fcntl has it from 3.13 on


def is_sealed(ring: int) -> bool:
    """Whether no process can map this memory for writing any more."""
    return bool(fcntl.fcntl(ring, fcntl.F_GET_SEALS) & F_SEAL_FUTURE_WRITE)


class Ring(NamedTuple):
    """Descriptors of a ring, to be sent and then closed."""

    writing: int
    """The producer's."""
    reading: int
    """The same memory for the consumer, read-only."""
    tail: int
    """The memory of the consumer's cursor, which the producer reads."""


def make_ring(source: PortRecord, destination: PortRecord) -> Ring:
    """Make the ring of one ordered pair of workers. Raises LocalError when out of descriptors or memory."""
    size = LARGE_RING_BYTES if TRANSPORT_KIND[destination.transport] in ("tap", "vhost") else RING_BYTES
    made: tuple[int, ...] = ()
    try:
        made = _core.ring_create(size, source.port, source.epoch, destination.port, destination.epoch)
        reading = _read_only(made[0])
    except (OSError, MemoryError) as error:
        close_all(made)
        raise LocalError(_shortage(error)) from None
    return Ring(made[0], reading, made[1])


def _read_only(memory: int) -> int:
    """Return a descriptor of the same memory that cannot be mapped for writing."""
    return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)


def _shortage(error: OSError | MemoryError) -> str:
    return f"no descriptors or memory for another port: {shortage(error)}, or detach some"


def _unread_by_tcp(vm: int) -> int:
    """Return the bytes that wait at the other end of a TCP connection, which TIOCOUTQ does not count."""
    try:
        with socket.socket(fileno=os.dup(vm)) as connection:
            if connection.family == socket.AF_UNIX:
                return 0
            other = tcp_peer.peer(connection)
    except OSError:
        return 0
    return 0 if other is None else other.unread

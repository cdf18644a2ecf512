"""A switch of several engines in one process and one thread: the core without processes or a control plane.

Every engine has a real socket to a "VM" that the test holds; what a supervisor would pass by
descriptor is passed by hand here. ``settle`` runs all engines in turn until none has anything to do, so a
test is deterministic although the sockets are real.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from forwarder import _core

RING_BYTES = 1 << 20
FLOOD_BYTES = 1 << 19
PULSE_S = 1000.0
"""So long that no pulse wakes an engine that should have been rung for."""

SOCKET_TYPES = {
    "stream": socket.SOCK_STREAM,
    "stream16": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "dgram": socket.SOCK_DGRAM,
}
KINDS = tuple(SOCKET_TYPES)
LENGTHS = {"stream": struct.Struct("!I"), "stream16": struct.Struct("<H")}
"""What stands before each frame on a stream."""
LONGEST = {kind: 0xFFFF if kind == "stream16" else _core.MAX_FRAME for kind in KINDS}
"""The longest frame that each kind can carry."""


def record(frame: bytes, kind: str = "stream") -> bytes:
    """The frame behind its length, as a QEMU stream socket carries it, or another kind of stream."""
    return LENGTHS[kind].pack(len(frame)) + frame


def mac(number: int) -> bytes:
    return bytes((0x02, 0, 0, 0, number >> 8, number & 255))


BROADCAST = b"\xff" * 6


def frame(dst: bytes, src: bytes, payload: bytes = b"", size: int = 60) -> bytes:
    return (dst + src + b"\x88\xb5" + payload).ljust(size, b"\0")


class Vm:
    """The test's end of one port."""

    def __init__(self, kind: str, sock: socket.socket) -> None:
        self.kind, self.sock = kind, sock
        self._tail = b""

    def send(self, *frames: bytes) -> None:
        if self.kind in LENGTHS:
            self.sock.sendall(b"".join(record(each, self.kind) for each in frames))
            return
        for each in frames:
            self.sock.send(each)

    def read(self, most: int = 1 << 18) -> list[bytes] | None:
        """Read once, at most ``most`` bytes: the frames that are complete now, None if there was nothing."""
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return None
        if not data:
            return None
        if self.kind not in LENGTHS:
            return [data]
        self._tail += data
        frames, at, prefix = [], 0, LENGTHS[self.kind]
        while len(self._tail) - at >= prefix.size:
            end = at + prefix.size + prefix.unpack_from(self._tail, at)[0]
            if len(self._tail) < end:
                break
            frames.append(self._tail[at + prefix.size : end])
            at = end
        self._tail = self._tail[at:]
        return frames

    def received(self) -> list[bytes]:
        """Everything that has arrived."""
        frames: list[bytes] = []
        while (more := self.read()) is not None:
            frames += more
        return frames

    @property
    def mid_frame(self) -> bool:
        """Whether a stream has stopped inside of a record."""
        return bool(self._tail)


class MiniSwitch:
    """Engines by port number, with membership and rings arranged at once.

    ``rings_given`` False withholds the rings that engines ask for. The statistics pages of ports that have
    left stay open, since what was lost towards others is counted in them. ``before_start`` gets every new
    flood ring before its engine maps it, the last moment to map it for writing, ``on_ring`` every new
    ring and tail, of which the same is true.
    """

    def __init__(self) -> None:
        self.engines: dict[int, _core.Engine] = {}
        self.vms: dict[int, Vm] = {}
        self.kinds: dict[int, str] = {}
        self.epochs: dict[int, int] = {}
        self.attachments: dict[int, int] = {}
        self.bells: dict[int, int] = {}
        self.floods: dict[int, int] = {}
        self.stats: dict[int, int] = {}
        self.past: list[int] = []
        self.flood_bell = _core.doorbell_create()
        self.rings_given = True
        self.before_start: Callable[[int], object] = lambda flood: None
        self.on_ring: Callable[[int, int], object] = lambda ring, tail: None
        self._epoch = 0
        self._switch_ends: dict[int, int] = {}

    def __enter__(self) -> MiniSwitch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        port: int,
        kind: str,
        *,
        buffer: int = 1 << 20,
        introduce: bool = True,
        ends: tuple[socket.socket, socket.socket] | None = None,
    ) -> Vm:
        """A port with a VM; ``buffer``: SO_SNDBUF of the switch's end, how much the VM may leave unread.

        ``ends``: the switch's and the VM's, where a pair connected both ways is not what is wanted.
        """
        ours, theirs = ends or socket.socketpair(socket.AF_UNIX, SOCKET_TYPES[kind])
        ours.setblocking(False)
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.vms[port] = Vm(kind, theirs)
        self.attach(port, kind, ours.detach(), introduce=introduce)
        return self.vms[port]

    def attach(self, port: int, kind: str, end: int, *, introduce: bool = True) -> None:
        """A port for the switch's end of a link, a non-blocking descriptor, which is ours from now on."""
        self._switch_ends[port] = end
        self.stats[port] = _core.stats_page_create()
        self.bells[port] = _core.doorbell_create()
        self.kinds[port] = kind
        self._start(port, introduce)
        self.attachments[port] = self.epochs[port]

    def _start(self, port: int, introduce: bool) -> None:
        self._epoch += 1
        self.epochs[port] = self._epoch
        self.attachments.setdefault(port, self._epoch)
        self.floods[port] = _core.flood_create(FLOOD_BYTES, port, self._epoch)
        self.before_start(self.floods[port])
        self.engines[port] = _core.Engine(
            port=port,
            epoch=self._epoch,
            kind=self.kinds[port],
            vm=self._switch_ends[port],
            doorbell=self.bells[port],
            flood_doorbell=self.flood_bell,
            stats=self.stats[port],
            flood=self.floods[port],
        )
        self.engines[port].pulse(PULSE_S)
        for other in self.engines if introduce else ():
            if other != port:
                self.introduce(other, port)
                self.introduce(port, other)

    def introduce(self, one: int, other: int) -> None:
        """Tell ``one`` that ``other`` exists, and give it the flood ring."""
        epoch = self.epochs[other]
        self.engines[one].peer_join(other, epoch, self.attachments[other])
        from_start = epoch > self.epochs[one]
        with suppress(PermissionError):  # out of reach
            self.engines[one].attach_flood(other, epoch, self.floods[other], from_start=from_start)

    def connect(self, src: int, dst: int) -> None:
        """The ring from ``src`` to ``dst``."""
        ring, tail = _core.ring_create(RING_BYTES, src, self.epochs[src], dst, self.epochs[dst])
        self.on_ring(ring, tail)
        self.engines[dst].attach_rx(src, self.epochs[src], ring, tail)
        self.engines[src].attach_tx(dst, self.epochs[dst], ring, tail, os.dup(self.bells[dst]))
        os.close(ring)
        os.close(tail)

    def restart(self, port: int) -> None:
        """A new engine under a new epoch for the same VM, as when a worker was killed."""
        self.engines.pop(port).close()
        os.close(self.floods.pop(port))
        self._start(port, introduce=True)

    def remove(self, port: int) -> None:
        self.engines.pop(port).close()
        for engine in self.engines.values():
            engine.peer_leave(port)
        self.vms.pop(port).sock.close()
        for table in (self._switch_ends, self.bells, self.floods):
            os.close(table.pop(port))
        self.past.append(self.stats.pop(port))
        del self.attachments[port]

    def turn(self) -> int:
        """One short run of every engine; returns the sum of all work counters, to see whether it changes."""
        for port, engine in list(self.engines.items()):
            events = engine.run(0)
            if events & _core.EVENT_WANTED and self.rings_given:
                for wanted in engine.wanted():
                    self.connect(port, wanted)
        return sum(
            value
            for page in self.stats.values()
            for name, value in _core.StatsPage(page).counters().items()
            if name not in ("turns", "sleeps", "eagain", "enobufs", "doorbells")
        )

    def settle(self) -> None:
        quiet, before = 0, -1
        while quiet < 3:
            after = self.turn()
            quiet = quiet + 1 if after == before else 0
            before = after

    def greet(self, *ports: int) -> None:
        """Let all ports learn where these ports' stations are, those of all ports if none is named."""
        for port in ports or self.vms:
            self.vms[port].send(frame(BROADCAST, mac(port)))
            self.settle()
            for vm in self.vms.values():
                vm.received()

    def read_out(self, vm: Vm, most: int = 1 << 18) -> list[bytes]:
        """Everything on its way to the VM, read ``most`` bytes at a time."""
        frames: list[bytes] = []
        self.settle()
        while (more := vm.read(most)) is not None:
            frames += more
            self.settle()
        return frames

    def counters(self, port: int) -> dict[str, int]:
        return _core.StatsPage(self.stats[port]).counters()

    def macs_behind(self, at: int, port: int) -> set[bytes]:
        """Addresses that are behind ``port``, as ``at`` has learned or was told."""
        return {address for address, _, _ in _core.StatsPage(self.stats[at]).macs(port)}

    def lost_towards(self, port: int) -> int:
        """Frames that any port lost because ``port`` had no room, and floods it was too slow for."""
        own = self.counters(port)["flood_lost"]
        return own + sum(
            towards
            for page in [*self.stats.values(), *self.past]
            for peer, _, towards, _ in _core.StatsPage(page).losses()
            if peer == port
        )

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()
        for vm in self.vms.values():
            vm.sock.close()
        for table in (self._switch_ends, self.bells, self.floods, self.stats):
            for fd in table.values():
                os.close(fd)
        for fd in (*self.past, self.flood_bell):
            os.close(fd)

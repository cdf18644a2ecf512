"""A switch of several engines in one process and one thread: the core without processes or a control plane.

Every engine has a real socket to a "VM" that the test holds; what a supervisor would pass by
descriptor is passed by hand here. ``settle`` runs all engines in turn until nobody has anything to do, so a
test is deterministic although the sockets are real.
"""

from __future__ import annotations

import os
import socket
import struct

from forwarder import _core

RING_BYTES = 1 << 20
FLOOD_BYTES = 1 << 19

SOCKET_TYPES = {
    "stream": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "dgram": socket.SOCK_DGRAM,
}


def record(frame: bytes) -> bytes:
    """The frame behind its length, as a QEMU stream socket carries it."""
    return struct.pack("!I", len(frame)) + frame


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
        if self.kind == "stream":
            self.sock.sendall(b"".join(map(record, frames)))
            return
        for each in frames:
            self.sock.send(each)

    def received(self) -> list[bytes]:
        """Everything that has arrived."""
        frames = []
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except BlockingIOError:
                break
            if not data:
                break
            if self.kind != "stream":
                frames.append(data)
                continue
            self._tail += data
            while len(self._tail) >= 4:
                (length,) = struct.unpack_from("!I", self._tail)
                if len(self._tail) < 4 + length:
                    break
                frames.append(self._tail[4 : 4 + length])
                self._tail = self._tail[4 + length :]
        return frames


class MiniSwitch:
    """Engines by port number, with membership and rings arranged at once."""

    def __init__(self) -> None:
        self.engines: dict[int, _core.Engine] = {}
        self.vms: dict[int, Vm] = {}
        self.epochs: dict[int, int] = {}
        self.bells: dict[int, int] = {}
        self.floods: dict[int, int] = {}
        self.blocks: dict[int, int] = {}
        self.flood_bell = _core.doorbell_create()
        self.rings_given = True
        self._epoch = 0
        self._switch_ends: list[socket.socket] = []

    def add(self, port: int, kind: str, *, buffer: int | None = None) -> Vm:
        ours, theirs = socket.socketpair(socket.AF_UNIX, SOCKET_TYPES[kind])
        ours.setblocking(False)
        theirs.setblocking(False)
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer or 1 << 20)
        self._epoch += 1
        self._switch_ends.append(ours)
        self.epochs[port] = self._epoch
        self.bells[port] = _core.doorbell_create()
        self.floods[port] = _core.flood_create(FLOOD_BYTES, port, self._epoch)
        self.blocks[port] = _core.block_create()
        self.engines[port] = _core.Engine(
            port=port,
            epoch=self._epoch,
            kind=kind,
            vm=ours.fileno(),
            doorbell=self.bells[port],
            flood_doorbell=self.flood_bell,
            block=self.blocks[port],
            flood=self.floods[port],
        )
        self.vms[port] = Vm(kind, theirs)
        for other in self.engines:
            if other != port:
                self._introduce(other, port)
                self._introduce(port, other)
        return self.vms[port]

    def _introduce(self, one: int, other: int) -> None:
        epoch = self.epochs[other]
        self.engines[one].peer_join(other, epoch, epoch)
        self.engines[one].attach_flood(other, epoch, self.floods[other])

    def connect(self, src: int, dst: int) -> None:
        """The ring from ``src`` to ``dst``."""
        ring = _core.ring_create(RING_BYTES, src, self.epochs[src], dst, self.epochs[dst])
        self.engines[dst].attach_rx(src, self.epochs[src], ring)
        self.engines[src].attach_tx(dst, self.epochs[dst], ring, os.dup(self.bells[dst]))
        os.close(ring)

    def remove(self, port: int) -> None:
        self.engines.pop(port).close()
        for engine in self.engines.values():
            engine.peer_leave(port)
        self.vms.pop(port).sock.close()

    def turn(self) -> int:
        """One short run of every engine; returns the sum of all work counters, to see whether it changes."""
        for port, engine in list(self.engines.items()):
            events = engine.run(0)
            if events & _core.EVENT_WANTED and self.rings_given:
                for wanted in engine.wanted():
                    self.connect(port, wanted)
        return sum(
            value
            for block in self.blocks.values()
            for name, value in _core.Block(block).counters().items()
            if name not in ("turns", "sleeps", "eagain", "enobufs", "doorbells")
        )

    def settle(self) -> None:
        quiet, before = 0, -1
        while quiet < 3:
            after = self.turn()
            quiet = quiet + 1 if after == before else 0
            before = after

    def counters(self, port: int) -> dict[str, int]:
        return _core.Block(self.blocks[port]).counters()

    def lost_towards(self, port: int) -> int:
        """Frames that any port lost because ``port`` had no room, and floods it was too slow for."""
        own = self.counters(port)["flood_lost"]
        return own + sum(
            towards
            for block in self.blocks.values()
            for peer, _, towards, _ in _core.Block(block).losses()
            if peer == port
        )

    def close(self) -> None:
        for engine in self.engines.values():
            engine.close()
        for vm in self.vms.values():
            vm.sock.close()
        for sock in self._switch_ends:
            sock.close()
        for table in (self.bells, self.floods, self.blocks):
            for fd in table.values():
                os.close(fd)
        os.close(self.flood_bell)

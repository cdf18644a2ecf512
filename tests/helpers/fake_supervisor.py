"""The supervisor's ends of one worker's edges, played by a test with real sockets and descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import zmq

from forwarder import _core
from forwarder.channel import Channel
from forwarder.names import FLOOD_BYTES, TRANSPORT_KIND, Policy, PortRecord
from forwarder.rendezvous import CONTROL, DESCRIPTORS, MEMBERSHIP, endpoint, path
from forwarder.wire import Assign, Beat, Ready, Snapshot, SnapshotRequest, decode, encode
from tests.helpers.mini_switch import SOCKET_TYPES, Vm

PATIENCE_S = 10.0
EPOCH = 4711


class FakeSupervisor:
    """Starts one worker, gives it port 1, and sees everything that it says."""

    def __init__(
        self,
        runtime_dir: str,
        program: tuple[str, ...] = ("-m", "workers"),
        stderr: int | None = None,
        preload: str = "",
        interval_ms: int = 200,
    ) -> None:
        """``preload``: a library for the worker. ``interval_ms``: between two beats."""
        self.runtime_dir = runtime_dir
        self.interval_ms = interval_ms
        self.sequence = 0
        self.table: dict[int, PortRecord] = {}
        self._open()
        root = os.path.dirname(os.path.dirname(os.path.abspath(_core.__file__)))
        self.worker = subprocess.Popen(
            [sys.executable, *program, runtime_dir],
            cwd=root,
            start_new_session=True,
            stderr=stderr,
            env={**os.environ, "LD_PRELOAD": f"{preload} {os.environ.get('LD_PRELOAD', '')}".strip()},
        )
        self._worker_id = b""
        self.heard: list[object] = []

    def _open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path(self.runtime_dir, DESCRIPTORS))
        self._listener.listen()
        self._listener.settimeout(PATIENCE_S)
        self._context = zmq.Context()
        self._membership = self._context.socket(zmq.PUB)
        self._membership.bind(endpoint(self.runtime_dir, MEMBERSHIP))
        self._control = self._context.socket(zmq.ROUTER)
        self._control.bind(endpoint(self.runtime_dir, CONTROL))
        self.channel: Channel | None = None

    def accept(self) -> object:
        """The worker's channel and its first message."""
        sock, _ = self._listener.accept()
        self.channel = Channel(sock)
        return self.next_on_channel()

    def next_on_channel(self) -> tuple[object, tuple[int, ...]]:
        assert self.channel is not None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            received = self.channel.receive()
            if received is not None:
                return received
            self.pump(0.01)
        raise AssertionError("nothing came over the channel")

    def assign(self, transport: str) -> Vm:
        """Give the worker port 1; return the VM's end."""
        message, _ = self.accept()
        assert isinstance(message, Ready)
        assert message.identity.pid == self.worker.pid
        kind = TRANSPORT_KIND[transport]
        ours, theirs = socket.socketpair(socket.AF_UNIX, SOCKET_TYPES[kind])
        ours.setblocking(False)
        theirs.settimeout(PATIENCE_S)
        self.fds = (
            ours.detach(),
            _core.doorbell_create(),
            _core.doorbell_create(),
            _core.stats_page_create(),
            _core.flood_create(FLOOD_BYTES, 1, 5),
        )
        self.record = PortRecord(1, 5, 5, "one", transport, Policy())
        self.table[1] = self.record
        assert self.channel is not None
        self.channel.send(Assign(self.record, EPOCH, self.interval_ms, self.interval_ms, False), self.fds)
        self.vm = Vm(kind, theirs)
        return self.vm

    def beat(self) -> None:
        self._membership.send(encode(Beat(EPOCH, self.sequence, self.interval_ms, self.interval_ms)))

    def say(self, message: object) -> None:
        self._control.send_multipart([self._worker_id, encode(message)])

    def pump(self, seconds: float) -> None:
        """Take reports for a while; snapshots are answered, the rest is kept in ``heard``."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._control.poll(int(left * 1000) + 1):
            self._worker_id, data = self._control.recv_multipart()
            message = decode(data)
            if isinstance(message, SnapshotRequest):
                self.say(Snapshot(EPOCH, self.sequence, tuple(self.table.values())))
            else:
                self.heard.append(message)

    def until(self, kind: type) -> object:
        """The next message of that kind, beating all the while."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.beat()
            self.pump(0.05)
            for message in self.heard:
                if isinstance(message, kind):
                    self.heard.remove(message)
                    return message
        raise AssertionError(f"no {kind.__name__} came; heard {self.heard}")

    def vanish(self) -> None:
        """Die as far as the worker can see."""
        if self.channel is not None:
            self.channel.close()
        self._listener.close()
        self._context.destroy(linger=0)
        for name in (DESCRIPTORS, MEMBERSHIP, CONTROL):
            os.unlink(path(self.runtime_dir, name))

    def come_back(self) -> None:
        self._open()

    def close(self) -> None:
        self.vanish()
        if self.worker.poll() is None:
            self.worker.kill()
        self.worker.wait(PATIENCE_S)
        if hasattr(self, "vm"):
            self.vm.sock.close()
        for fd in getattr(self, "fds", ()):
            os.close(fd)

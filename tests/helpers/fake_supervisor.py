"""The supervisor's ends of one worker's edges, played by a test with real sockets and descriptors."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time

import zmq

from forwarder import _core
from forwarder.channel import Channel, ChannelClosedError, close_all
from forwarder.membership import Snapshot
from forwarder.messages import Assign, Beat, Fork, Forked, Ready, SnapshotRequest
from forwarder.names import FLOOD_BYTES, TRANSPORT_KIND, Policy, PortRecord
from forwarder.rendezvous import CHANNEL, LOCK, MEMBERSHIP, endpoint, path, worker_path
from forwarder.wire import encode
from tests.helpers.core.mini_switch import SOCKET_TYPES, Vm

PATIENCE_S = 60.0
EPOCH = 4711


class Worker:
    """A process that is our child, though its template has started it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return how it has ended, None if it has not."""
        return self._wait(0.0)

    def wait(self, timeout: float) -> int:
        """Return how it has ended. Raises TimeoutError."""
        code = self._wait(timeout)
        if code is None:
            raise TimeoutError(f"worker {self.pid} has not ended")
        return code

    def kill(self) -> None:
        """End it."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _wait(self, timeout: float) -> int | None:
        if self._code is None and select.select([self._pidfd], [], [], timeout)[0]:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._pidfd)
        return self._code


class FakeSupervisor:
    """Starts one worker, gives it port 1, and sees everything that it says."""

    def __init__(
        self,
        runtime_dir: str,
        program: tuple[str, ...] = ("-m", "workers"),
        preload: str = "",
        pass_fds: tuple[int, ...] = (),
        interval_ms: int = 200,
    ) -> None:
        """``preload``: its library; ``pass_fds``: what it inherits; ``interval_ms``: of beats."""
        self.runtime_dir = runtime_dir
        self.interval_ms = interval_ms
        self.sequence = 0
        self.table: dict[int, PortRecord] = {}
        self.heard: list[object] = []
        with open(path(runtime_dir, LOCK), "w") as lock:
            lock.write(f"{os.getpid()}\n{EPOCH}\n1\n")
        root = os.path.dirname(os.path.dirname(os.path.abspath(_core.__file__)))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.template = subprocess.Popen(
            [sys.executable, *program, runtime_dir],
            cwd=root,
            start_new_session=True,
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            pass_fds=pass_fds,
            env={**os.environ, "LD_PRELOAD": f"{preload} {os.environ.get('LD_PRELOAD', '')}".strip()},
        )
        theirs.close()
        self.channel: Channel | None = Channel(ours)
        self.worker = self._fork()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    def _fork(self) -> Worker:
        """Have the template make the worker, whose channel is ours from now on."""
        assert self.channel is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.send(Fork(), (theirs.fileno(),))
        theirs.close()
        answer, _ = self.next_on_channel()
        assert isinstance(answer, Forked)
        self.channel.close()
        assert self.template.wait(PATIENCE_S) == 0
        self.channel = Channel(ours)
        return Worker(answer.pid)

    def publish_from_now_on(self) -> None:
        """Connect to the worker's subscription, and wait until it is in force."""
        self._context = zmq.Context()
        self.membership = self._context.socket(zmq.XPUB)
        self.membership.connect(endpoint(worker_path(self.runtime_dir, self.worker.pid, MEMBERSHIP)))
        assert self.membership.poll(int(PATIENCE_S * 1000))
        assert self.membership.recv() == b"\1"

    def next_on_channel(self) -> tuple[object, tuple[int, ...]]:
        """The next message, with its descriptors."""
        assert self.channel is not None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            received = self.channel.receive()
            if received is not None:
                return received
            time.sleep(0.001)
        raise AssertionError("nothing came over the channel")

    def meet(self) -> Ready:
        """The spare's first words."""
        ready, descriptors = self.next_on_channel()
        close_all(descriptors)
        assert isinstance(ready, Ready)
        self.publish_from_now_on()
        return ready

    def assign(self, transport: str) -> Vm:
        """Give the worker port 1; return the VM's end."""
        self.meet()
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
        self.say(
            Assign(self.record, self.record.epoch, EPOCH, self.interval_ms, self.interval_ms, True), self.fds
        )
        self.vm = Vm(kind, theirs)
        return self.vm

    def beat(self) -> None:
        self.membership.send(encode(Beat(EPOCH, self.sequence, self.interval_ms, self.interval_ms)))

    def say(self, message: object, descriptors: tuple[int, ...] = ()) -> None:
        assert self.channel is not None
        self.channel.send(message, descriptors)

    def pump(self, seconds: float) -> None:
        """Take reports for a while; snapshots are answered, the rest is kept in ``heard``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                received = self.channel.receive()
            except ChannelClosedError:
                return
            if received is None:
                time.sleep(0.001)
            elif isinstance(received[0], SnapshotRequest):
                for part in Snapshot(EPOCH, self.sequence, tuple(self.table.values())).parts():
                    self.say(part)
            else:
                self.heard.append(received[0])
                close_all(received[1])

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
            self.channel = None
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def come_back(self) -> None:
        """Go to the worker's door, as the next supervisor."""
        file = worker_path(self.runtime_dir, self.worker.pid, CHANNEL)
        self.channel = Channel.connect(file, self.worker.pid)

    def close(self) -> None:
        self.vanish()
        if self.worker.poll() is None:
            self.worker.kill()
        self.worker.wait(PATIENCE_S)
        if hasattr(self, "vm"):
            self.vm.sock.close()
        close_all(getattr(self, "fds", ()))

"""A VM of vhost-user without a hypervisor: a front-end in Python before the driver of ``virtio_driver``."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.guests.fake_vm import FakeVM, LinkClosed
from tests.helpers.guests.virtio_driver import (
    FRONT_END,
    GUEST,
    MEMORY_BYTES,
    PROTOCOL_FEATURES,
    Driver,
    Queue,
)
from tests.helpers.guests.waiting import PATIENCE

HEADER = struct.Struct("<III")
VERSION, REPLY, NEED_REPLY = 1, 4, 8
NUMBERS = {
    "GET_FEATURES": 1,
    "SET_FEATURES": 2,
    "SET_OWNER": 3,
    "SET_MEM_TABLE": 5,
    "SET_VRING_NUM": 8,
    "SET_VRING_ADDR": 9,
    "SET_VRING_BASE": 10,
    "GET_VRING_BASE": 11,
    "SET_VRING_KICK": 12,
    "SET_VRING_CALL": 13,
    "GET_PROTOCOL_FEATURES": 15,
    "SET_PROTOCOL_FEATURES": 16,
    "SET_VRING_ENABLE": 18,
    "ADD_MEM_REG": 37,
}
ANSWERED = ("GET_FEATURES", "GET_VRING_BASE", "GET_PROTOCOL_FEATURES")
REPLY_ACK = 1 << 3


class VhostVM:
    """One VM, connected. ``set_up`` makes its driver work; ``between`` is called after each message sent."""

    def __init__(
        self, path: Path, driver: Driver | None = None, *, sock: socket.socket | None = None
    ) -> None:
        """Connect to ``path``; with ``sock`` it is connected there already, since it was dialled."""
        self.driver = driver or Driver()
        self.sock = sock or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        if sock is None:
            self.sock.connect(str(path))
        self.acknowledges = False
        self.between: Callable[[str], object] = lambda name: None

    def say(self, name: str, payload: bytes = b"", *descriptors: int) -> bytes | None:
        """Send a message; return the payload of its answer, None where it has none."""
        asks = name in ANSWERED or self.acknowledges
        flags = VERSION | (NEED_REPLY if self.acknowledges and name not in ANSWERED else 0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
        self.sock.sendmsg(
            [HEADER.pack(NUMBERS[name], flags, len(payload)) + payload], rights if descriptors else []
        )
        self.between(name)
        return self.answer(NUMBERS[name]) if asks else None

    def answer(self, number: int) -> bytes:
        """Read one answer, to just this request."""
        replied, flags, size = HEADER.unpack(self._read(HEADER.size))
        assert (replied, flags) == (number, VERSION | REPLY), f"an answer to {replied}, not to {number}"
        return self._read(size)

    def set_up(self, *, acknowledged: bool = True) -> None:
        """Do what QEMU does until its guest's driver is at work."""
        self.say("GET_FEATURES")
        self.say("GET_PROTOCOL_FEATURES")
        self.say("SET_PROTOCOL_FEATURES", struct.pack("<Q", REPLY_ACK if acknowledged else 0))
        self.acknowledges = acknowledged
        self.say("SET_OWNER")
        self.start()

    def start(self) -> None:
        """Do what QEMU does when the driver of its guest begins."""
        features = self.driver.features | PROTOCOL_FEATURES
        self.say("SET_FEATURES", struct.pack("<Q", features))
        self.say(
            "SET_MEM_TABLE",
            struct.pack("<IIQQQQ", 1, 0, GUEST, MEMORY_BYTES, FRONT_END, 0),
            self.driver.fd,
        )
        for index, queue in enumerate(self.driver.queues):
            self.start_queue(index, queue, base=0)

    def start_queue(self, index: int, queue: Queue, base: int) -> None:
        """Say all of one ring."""
        self.say("SET_VRING_NUM", struct.pack("<II", index, queue.entries))
        self.say("SET_VRING_BASE", struct.pack("<II", index, base))
        places = (FRONT_END + each for each in (queue.descriptors, queue.used, queue.available))
        self.say("SET_VRING_ADDR", struct.pack("<IIQQQQ", index, 0, *places, 0))
        self.say("SET_VRING_KICK", struct.pack("<Q", index), queue.kick)
        self.say("SET_VRING_CALL", struct.pack("<Q", index), queue.call)
        self.say("SET_VRING_ENABLE", struct.pack("<II", index, 1))

    def stop_queue(self, index: int) -> int:
        """Ask for a ring's base, which stops it."""
        answer = self.say("GET_VRING_BASE", struct.pack("<II", index, 0))
        assert answer is not None
        return int(struct.unpack("<II", answer)[1])

    def send(self, frame: bytes) -> None:
        """Send one frame, and kick."""
        self.driver.send(frame)
        self.driver.queues[1].kicks()

    def post(self, count: int, size: int = 2048) -> None:
        """Offer buffers, and kick."""
        self.driver.post(count, size)
        self.driver.queues[0].kicks()

    def has_ended(self) -> bool:
        """Whether the switch has closed the link."""
        self.sock.setblocking(False)
        try:
            return not self.sock.recv(1)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)

    def close(self) -> None:
        """End the VM."""
        self.sock.close()
        self.driver.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            assert more, "the switch has closed the link"
            data += more
        return data


class GuestVM(FakeVM):
    """The same as any fake VM: sends and receives frames."""

    BUFFERS = 64

    def __init__(self, path: Path) -> None:
        self.guest = VhostVM(path, Driver(entries=2 * self.BUFFERS))
        self.guest.set_up(acknowledged=False)
        self.guest.post(self.BUFFERS)
        super().__init__(self.guest.sock)

    def close(self) -> None:
        """End the VM."""
        self.guest.close()

    def offer(self, frame: bytes) -> bool:
        """Send a frame if there is a descriptor for it."""
        self.guest.driver.reclaim()
        if not self.guest.driver.queues[1].free:
            return False
        self.guest.send(frame)
        return True

    def _send_one(self, frame: bytes, deadline: float) -> None:
        while not self.offer(frame):
            if time.monotonic() > deadline:
                raise TimeoutError("no descriptor came back within the deadline")

    def _read(self) -> bool:
        frames = self.guest.driver.frames()
        if frames:
            self.guest.post(len(frames))
        self._received.extend(frames)
        if not frames and self.guest.has_ended():
            raise LinkClosed("the switch has closed the link")
        return bool(frames)

    def _wait(self, event: int, deadline: float, what: str) -> None:
        queue = self.guest.driver.queues[0]
        poller = select.poll()
        poller.register(queue.call, event)
        poller.register(self.sock, select.POLLRDHUP)
        if queue.seen == queue.used_index() and not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError(f"{what}: nothing within the deadline")
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(queue.call)

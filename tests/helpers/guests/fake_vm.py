"""A VM that is nothing but a socket: sends and receives raw Ethernet frames over every kind of VM socket.

``connect(url)`` takes the same URLs as the switch's listeners (``unix://``, ``tcp://``, ``unixpacket://``,
``unixgram://``; ``connect://`` where ``--listen unix://`` listens) and speaks the framing that goes with it;
``packet_vm`` wraps an AF_PACKET socket, so that a TAP's other end can take part in the same tests. All
methods have deadlines; nothing here knows the switch's code, so that a mistake in the switch's framing cannot
hide behind the same mistake here.

A link that the switch closed shows as ``LinkClosed``, a frame that did not come as ``TimeoutError``.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

# The largest frame a VM may send (libkrun's and vmnet's limit) is 65,550; a little more shows one that grew.
LARGEST_READ = 1 << 17
SOCKET_BUFFER = 1 << 20
DEADLINE = 60.0
ETHERTYPE = 0x88B5  # IEEE 802 local experimental: no kernel answers it
BROADCAST = b"\xff" * 6
HANDSHAKE = b"VFKT"  # vfkit says this first

V = TypeVar("V", bound="FakeVM")


class LinkClosed(ConnectionError):  # noqa: N818 - an event of the link, not always an error
    """The switch closed this VM's link."""


def mac(number: int) -> bytes:
    """A locally administered unicast address, different for each ``number`` (0 to 2**32 - 1)."""
    return b"\x02\xbb" + struct.pack(">I", number)


def build_frame(dst: bytes, src: bytes, size: int = 60, *, seed: int = 0) -> bytes:
    """A frame of exactly ``size`` bytes (14 or more); its payload is pseudo-random, and ``seed``'s."""
    payload = random.Random(f"{seed}/{size}").randbytes(size - 14)
    return dst + src + struct.pack(">H", ETHERTYPE) + payload


class FakeVM:
    """One VM end of a link. Subclasses know the framing; here are the deadlines."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._received: deque[bytes] = deque()

    def __enter__(self: V) -> V:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the link as a VM that dies does: without a word."""
        self.sock.close()

    def send(self, *frames: bytes, timeout: float = DEADLINE) -> None:
        """Send the frames in order; raises TimeoutError when the switch does not take them in time."""
        deadline = time.monotonic() + timeout
        for frame in frames:
            self._send_one(frame, deadline)

    def offer(self, frame: bytes) -> bool:
        """Send a frame if it is taken now, of a kind that takes whole ones; whether it was."""
        try:
            self.sock.send(frame)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                return False
            raise
        return True

    def receive(self, timeout: float = DEADLINE) -> bytes:
        """Return the next frame; raises TimeoutError, or LinkClosed after the last one that came."""
        deadline = time.monotonic() + timeout
        while not self._received:
            if not self._read():
                self._wait(select.POLLIN, deadline, "a frame")
        return self._received.popleft()

    def receive_matching(self, wanted: Callable[[bytes], bool], timeout: float = DEADLINE) -> bytes:
        """Return the next frame that ``wanted`` accepts and throw away those before it."""
        deadline = time.monotonic() + timeout
        while True:
            frame = self.receive(max(0.0, deadline - time.monotonic()))
            if wanted(frame):
                return frame

    def drain(self) -> list[bytes]:
        """Return all frames that have arrived by now, without waiting."""
        while self._read():
            pass
        frames = list(self._received)
        self._received.clear()
        return frames

    def wait_closed(self, timeout: float = DEADLINE) -> None:
        """Wait until the switch has closed this link, losing frames before that; raises TimeoutError."""
        try:
            self.receive_matching(lambda _: False, timeout)
        except LinkClosed:
            return

    def _wait(self, event: int, deadline: float, what: str) -> None:
        poller = select.poll()
        poller.register(self.sock, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            raise TimeoutError(f"{what}: nothing within the deadline")

    def _send_one(self, frame: bytes, deadline: float) -> None:
        raise NotImplementedError

    def _read(self) -> bool:
        """Move what has arrived to ``_received``; False if there is nothing now; may raise LinkClosed."""
        raise NotImplementedError


class StreamVM(FakeVM):
    """QEMU's stream framing: each frame after its length in four bytes, big-endian."""

    length = struct.Struct(">I")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._tail = bytearray()

    @property
    def in_frame(self) -> bool:
        """Whether the last frame has begun to arrive and not ended."""
        return bool(self._tail)

    def encode(self, frame: bytes) -> bytes:
        """Return the frame as the stream carries it."""
        return self.length.pack(len(frame)) + frame

    def _send_one(self, frame: bytes, deadline: float) -> None:
        self._send_raw(self.encode(frame), deadline)

    def _send_raw(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline, "room to send")
            except (BrokenPipeError, ConnectionResetError) as error:
                raise LinkClosed(str(error)) from error

    def _read(self) -> bool:
        try:
            data = self.sock.recv(LARGEST_READ)
        except BlockingIOError:
            return False
        except ConnectionResetError as error:
            raise LinkClosed(str(error)) from error
        if not data:
            left = f" within a frame, after {len(self._tail)} bytes of it" if self._tail else ""
            raise LinkClosed(f"the switch closed the stream{left}")
        self._tail += data
        start = 0
        while len(self._tail) - start >= self.length.size:
            (size,) = self.length.unpack_from(self._tail, start)
            begin = start + self.length.size
            if len(self._tail) - begin < size:
                break
            self._received.append(bytes(self._tail[begin : begin + size]))
            start = begin + size
        del self._tail[:start]
        return True


class ConnectVM(StreamVM):
    """gvforwarder's framing, after its request: each frame after its length in two bytes, little-endian."""

    length = struct.Struct("<H")
    REQUEST = b"POST /connect HTTP/1.1\r\nHost: \r\nUser-Agent: test\r\nContent-Length: 0\r\n\r\n"


class MessageVM(FakeVM):
    """One frame is one message: seqpacket, datagram and AF_PACKET sockets."""

    def _send_one(self, frame: bytes, deadline: float) -> None:
        while True:
            try:
                self.sock.send(frame)
                return
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline, "room to send")
            except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError) as error:
                raise LinkClosed(str(error)) from error
            except OSError as error:
                if error.errno != errno.ENOBUFS or time.monotonic() > deadline:
                    raise
                time.sleep(0.001)  # poll says writable all the while, so there is nothing else to wait on

    def _read(self) -> bool:
        try:
            data = self.sock.recv(LARGEST_READ)
        except BlockingIOError:
            return False
        except (ConnectionResetError, ConnectionRefusedError) as error:
            raise LinkClosed(str(error)) from error
        if not data and self.sock.type != socket.SOCK_DGRAM:
            raise LinkClosed("the switch closed the link")
        self._received.append(data)
        return True


class DatagramVM(MessageVM):
    """A vfkit VM: bound to a path of its own, left behind if it dies, and connected to the switch."""

    def __init__(self, sock: socket.socket, local: Path) -> None:
        super().__init__(sock)
        self.local = local

    def close(self) -> None:
        """Close the socket and remove its path, as a VM that ends in good order does."""
        super().close()
        self.local.unlink(missing_ok=True)

    def vanish(self) -> None:
        """Close the socket and leave the path behind, as QEMU does and as a VM that is killed does."""
        super().close()


class PacketVM(MessageVM):
    """The kernel's side of a TAP, through an AF_PACKET socket bound to it (``netns.Namespace.packet_vm``).

    The kernel takes a VLAN tag out of a frame before a packet socket sees it, and hands it over beside the
    frame: it is put back here, so that a frame reads as it was on the wire. The socket also shows what its
    own side sends; that is left out.
    """

    _AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
    _PACKET_AUXDATA = 8
    _SOL_PACKET = 263
    _VLAN_VALID = 0x10
    HEADER_BYTES = 0

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(self._SOL_PACKET, self._PACKET_AUXDATA, 1)

    def _read(self) -> bool:
        try:
            frame, notes, _, address = self.sock.recvmsg(LARGEST_READ, socket.CMSG_SPACE(self._AUXDATA.size))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO):
                raise LinkClosed(str(error)) from error
            raise
        if address[2] == socket.PACKET_OUTGOING:
            return True
        for level, kind, data in notes:
            if (level, kind) == (self._SOL_PACKET, self._PACKET_AUXDATA):
                status, *_, tag, protocol = self._AUXDATA.unpack(data[: self._AUXDATA.size])
                if status & self._VLAN_VALID:
                    at = self.HEADER_BYTES + 12
                    frame = frame[:at] + struct.pack(">HH", protocol or 0x8100, tag) + frame[at:]
        self._received.append(frame)
        return True


class OffloadVM(PacketVM):
    """A ``PacketVM`` that sees and says what is left to a network card, in a header before each frame.

    It is packet(7)'s ``virtio_net_hdr``: with it a frame can be larger than the MTU and its checksum be
    missing, both ways.
    """

    _PACKET_VNET_HDR = 15
    HEADER_BYTES = 10

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(self._SOL_PACKET, self._PACKET_VNET_HDR, 1)


def connect(url: str, *, local: Path | None = None, handshake: bool = False) -> FakeVM:
    """Connect to a listener of the switch and return the VM's end of the link.

    ``local`` is the path that a ``unixgram://`` VM binds (needed there, useless elsewhere); a socket that an
    earlier VM left behind is replaced. ``handshake`` sends vfkit's greeting first. Raises OSError if no
    process listens.
    """
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        assert parts.hostname is not None
        assert parts.port is not None
        sock = socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return StreamVM(sock)
    kind = {
        "unix": socket.SOCK_STREAM,
        "connect": socket.SOCK_STREAM,
        "unixpacket": socket.SOCK_SEQPACKET,
        "unixgram": socket.SOCK_DGRAM,
    }[parts.scheme]
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.settimeout(DEADLINE)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        if kind == socket.SOCK_DGRAM:
            if local is None:
                raise ValueError(f"a VM on {url} needs a path of its own")
            local.unlink(missing_ok=True)
            sock.bind(os.fspath(local))
        sock.connect(parts.path)
    except BaseException:
        sock.close()
        raise
    if parts.scheme == "connect":
        sock.sendall(ConnectVM.REQUEST)
        return ConnectVM(sock)
    if kind == socket.SOCK_STREAM:
        return StreamVM(sock)
    if kind == socket.SOCK_SEQPACKET:
        return MessageVM(sock)
    assert local is not None
    vm = DatagramVM(sock, local)
    if handshake:
        vm.send(HANDSHAKE)
    return vm

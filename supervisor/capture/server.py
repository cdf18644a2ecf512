"""The supervisor's side of captures: give viewers the rings that workers copy frames to.

Theory of operation
-------------------
A viewer connects to ``capture.sock``, sends WantCapture and gets a Reply. A ring is made for each wanted port
that forwards; the port's worker gets it with Capture, the viewer with CaptureRing. So frames go from the
worker to the viewer through shared memory; the supervisor sees none. While the viewer is connected, ``tick``
finds ports that are new or have another worker. When the viewer hangs up, the workers get CaptureOver.

Each capture has a number, so a worker can have several. At most ``MOST`` run at one time, so that a forgotten
capture does not block the next one; each costs a port's worker a copy of its frames. ``MEMORY`` bounds the
rings of all ports together: with many ports each ring is smaller.

Example: `capture all` on a switch of 250 ports gives each a ring of 512 KiB. Port 7's worker is killed: a
quarter of a second later its next worker has a ring, and the viewer gets it under the new epoch.

Runs in the thread of the loop. Viewers run under our own user (workers cannot connect: they are in cells).
"""

import itertools
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

from forwarder import _core, unix_sockets
from forwarder.acceptor import Acceptor, Pauses
from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Capture, CaptureOver, CaptureRing, Message, Reply, WantCapture
from forwarder.names import Incarnation, PortRecord, port_called
from forwarder.rendezvous import CAPTURES, path
from forwarder.unix_sockets import SocketFile
from supervisor.base.logs import Throttle, say
from supervisor.base.mending import mended

MOST = 4
"""Most captures at one time: two of an operator, one of the page, and one that runs for days."""
MEMORY = 128 << 20
"""Bytes of all rings of one capture."""
LARGEST_RING, SMALLEST_RING = 8 << 20, 256 << 10
"""The largest and the smallest ring: some 5,000 frames of 1,514 bytes; two of the longest frames."""
LOOK_S = 0.25
"""Time between two looks for new ports."""


class Workers(Protocol):
    """The workers of all ports."""

    def forwarding(self) -> list[PortRecord]:
        """Return the ports that forward."""

    def tell(self, served: Incarnation, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send to a port's worker of this epoch; return False if the epoch is over."""


class Capturing(NamedTuple):
    """One capture."""

    number: int
    viewer: LoopChannel
    wanted: WantCapture
    ring_bytes: int
    by: dict[str, int]
    """User and process of the viewer."""
    ports: str
    """The captured ports, in a sentence."""
    given: dict[int, Incarnation]
    """The captured ports, with the epoch of the worker that copies."""


def ring_bytes(ports: int) -> int:
    """Return the size of each port's ring, a power of two."""
    size = LARGEST_RING
    while size > SMALLEST_RING and size * ports > MEMORY:
        size //= 2
    return size


class CaptureServer:
    """The socket and its viewers."""

    def __init__(self, loop: Loop, pauses: Pauses, runtime_dir: str, workers: Workers) -> None:
        """Listen. Raises LocalError."""
        self._loop = loop
        self._workers = workers
        self._sock, self._file = unix_sockets.listen(path(runtime_dir, CAPTURES), socket.SOCK_SEQPACKET)
        self._acceptor = Acceptor(loop, self._sock, self._accepted, pauses)
        self._numbers = itertools.count(1)
        self._viewers: dict[int, LoopChannel] = {}
        """The connected viewers, by the number of their capture."""
        self._captures: dict[int, Capturing] = {}
        self._look_at = float("inf")
        self._throttle = Throttle()

    def mend(self) -> SocketFile:
        """Listen again if the socket's file was deleted; return the file."""
        self._file = mended(self._file.path, self._file, self._listen_again, self._throttle)
        return self._file

    def tick(self, now: float) -> None:
        """Give rings for ports that are new or have another worker."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for capture in list(self._captures.values()):
            self._give(capture)

    def deadline(self) -> float:
        """Return the time of the next ``tick``."""
        return self._look_at

    def copies(self, name: str) -> bool:
        """Whether a capture that asked for this port by name has its ring."""
        return any(name in capture.wanted.ports and capture.given for capture in self._captures.values())

    def close(self) -> None:
        """End all captures and remove the socket."""
        for number in list(self._viewers):
            self._end(number)
        self._acceptor.close()
        self._file.remove()
        self._sock.close()

    def _listen_again(self) -> SocketFile:
        before, (self._sock, file) = self._sock, unix_sockets.listen(self._file.path, socket.SOCK_SEQPACKET)
        self._acceptor.move_to(self._sock)
        before.close()
        return file

    def _accepted(self, sock: socket.socket) -> None:
        viewer = LoopChannel(sock)
        if not viewer.credentials().are_ours:
            viewer.close()
        elif len(self._viewers) >= MOST:
            _refuse(viewer, f"{MOST} captures are under way, of {self._under_way()}; end one of them first")
        else:
            number = next(self._numbers)
            self._viewers[number] = viewer
            viewer.watch(self._loop, partial(self._on_viewer, number))

    def _under_way(self) -> str:
        return "; ".join(capture.ports for capture in self._captures.values()) or "no ports yet"

    def _on_viewer(self, number: int) -> None:
        while (viewer := self._viewers.get(number)) is not None:
            try:
                received = viewer.receive()
            except ChannelClosedError:
                self._end(number)
                return
            except PeerError as error:
                self._throttle.warning("bad", f"bad message on {CAPTURES}, ignored: {error}")
                self._end(number, f"the switch does not understand the request: {error}")
                return
            if received is None:
                return
            close_all(received[1])
            with suppress(ChannelClosedError):  # receiving shows the end, too
                self._take(number, viewer, received[0])

    def _take(self, number: int, viewer: LoopChannel, message: Message) -> None:
        """Take the viewer's messages. Raises ChannelClosedError."""
        if not isinstance(message, WantCapture) or number in self._captures:
            what = type(message).__name__
            self._throttle.warning("bad", f"bad message on {CAPTURES}, ignored: {what} is not expected")
            self._end(number)
            return
        records = self._workers.forwarding()
        strange = [name for name in message.ports if port_called(name, records) is None]
        if strange:
            self._end(number, f"no port {strange[0]!r} forwards now; supervisor status lists the ports")
            return
        size = ring_bytes(len(message.ports) or len(records))
        chosen = [record.name for record in _chosen(message.ports, records)] if message.ports else []
        by, ports = viewer.credentials()._asdict(), ", ".join(chosen) or "all ports"
        self._captures[number] = capture = Capturing(number, viewer, message, size, by, ports, {})
        viewer.send(Reply(True, None))
        say("capture", f"a capture of {capture.ports} begins", began=True, by=capture.by)
        self._look_at = 0.0

    def _give(self, capture: Capturing) -> None:
        for record in _chosen(capture.wanted.ports, self._workers.forwarding()):
            if capture.given.get(record.port) != record.incarnation:
                try:
                    self._give_ring(capture, record)
                except (ChannelClosedError, LocalError, OSError) as error:
                    self._end(capture.number, f"the capture cannot go on: {error}")
                    return

    def _give_ring(self, capture: Capturing, record: PortRecord) -> None:
        ring = _core.capture_create(capture.ring_bytes, record.port, record.epoch)
        begin = Capture(capture.number, *capture.wanted[1:])
        try:
            if not self._workers.tell(record.incarnation, begin, (ring,)):
                return
            capture.given[record.port] = record.incarnation
            capture.viewer.send(
                CaptureRing(record.port, record.epoch, record.name, record.transport), (ring,)
            )
        finally:
            os.close(ring)

    def _end(self, number: int, why: str | None = None) -> None:
        viewer = self._viewers.pop(number)
        capture = self._captures.pop(number, None)
        if not self._captures:
            self._look_at = float("inf")
        if why is not None:
            _refuse(viewer, why)
        else:
            viewer.close()
        if capture is not None:
            say("capture", f"the capture of {capture.ports} has ended", began=False, by=capture.by)
            for served in capture.given.values():
                self._workers.tell(served, CaptureOver(number))


def _refuse(viewer: LoopChannel, why: str) -> None:
    with suppress(ChannelClosedError):
        viewer.send(Reply(False, why))
    viewer.close()


def _chosen(names: Sequence[str], records: Sequence[PortRecord]) -> Sequence[PortRecord]:
    """Return the ports of these names or numbers; all without any."""
    called = {found.port for name in names if (found := port_called(name, records)) is not None}
    return [record for record in records if not names or record.port in called]

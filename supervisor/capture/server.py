"""The supervisor's side of a capture: it gives a viewer the rings that workers copy to, and sees no frame.

Theory of operation
-------------------
A viewer connects to ``capture.sock``, says WantCapture and gets a Reply. For each port that it wants, and
that forwards, a ring is made; the port's worker gets it with Capture, the viewer with CaptureRing. So
frames go from the worker to the viewer through shared memory. While the viewer is connected, ``tick`` looks
for ports that are new or have another worker. When it hangs up, however it ended, the workers get
CaptureOver.

One viewer at a time: each port has one copy of what it sees. A second one is refused with a line.

Memory is bounded by ``MEMORY`` for all ports of a capture; a port of many has a smaller ring.

Example: `capture all` on a switch of 250 ports gives each a ring of 1 MiB. Port 7's worker is killed: a
quarter of a second later its next worker has a ring, and the viewer gets it under the new epoch.

Runs in the thread of the loop. Whoever connects is of our own user (and no worker: these are in cells).
"""

import os
import socket
from contextlib import suppress
from typing import NamedTuple, Protocol

from forwarder import _core, unix_sockets
from forwarder.acceptor import Acceptor, Pauses
from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Capture, CaptureOver, CaptureRing, Message, Reply, WantCapture
from forwarder.names import Incarnation, PortRecord
from forwarder.rendezvous import CAPTURES, path
from supervisor.base.logs import log

MEMORY = 256 << 20
"""Bytes of all rings of one capture."""
LARGEST_RING, SMALLEST_RING = 8 << 20, 256 << 10
"""Some 5,000 frames of 1,514 bytes; two of the longest frames."""
LOOK_S = 0.25
"""How long a new port waits for its ring."""


class Workers(Protocol):
    """The workers of all ports."""

    def forwarding(self) -> list[PortRecord]:
        """Return the ports that forward."""

    def tell(self, served: Incarnation, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """Send to the worker of that incarnation of a port; False if it is over."""


class Session(NamedTuple):
    """One capture."""

    wanted: WantCapture
    ring_bytes: int
    given: dict[int, Incarnation]
    """By port, whose worker copies."""


def ring_bytes(ports: int) -> int:
    """Return the size of the ring of each of so many ports: a power of two."""
    size = LARGEST_RING
    while size > SMALLEST_RING and size * ports > MEMORY:
        size //= 2
    return size


class CaptureServer:
    """The socket, and the viewer that there is."""

    def __init__(self, loop: Loop, pauses: Pauses, runtime_dir: str, workers: Workers) -> None:
        """Listen. Raises LocalError."""
        self._loop = loop
        self._workers = workers
        self._sock, self._file = unix_sockets.listen(path(runtime_dir, CAPTURES), socket.SOCK_SEQPACKET)
        self._acceptor = Acceptor(loop, self._sock, self._accepted, pauses)
        self._viewer: LoopChannel | None = None
        self._session: Session | None = None
        self._look_at = float("inf")

    def tick(self, now: float) -> None:
        """Give rings for ports that are new or have another worker."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        if self._session is not None:
            self._give(self._session)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._look_at

    def close(self) -> None:
        """End the capture and remove the socket."""
        self._end()
        self._acceptor.close()
        self._file.remove()
        self._sock.close()

    def _accepted(self, sock: socket.socket) -> None:
        viewer = LoopChannel(sock)
        if not viewer.credentials().are_ours:
            viewer.close()
        elif self._viewer is not None:
            self._refuse(viewer, "another capture is under way; end it first")
        else:
            self._viewer = viewer
            viewer.watch(self._loop, self._on_viewer)

    def _refuse(self, viewer: LoopChannel, why: str) -> None:
        with suppress(ChannelClosedError):
            viewer.send(Reply(False, why))
        viewer.close()

    def _on_viewer(self) -> None:
        while self._viewer is not None:
            try:
                received = self._viewer.receive()
            except ChannelClosedError:
                self._end()
                return
            except PeerError as error:
                log.warning("a viewer of captures: %s", error)
                self._end()
                return
            if received is None:
                return
            close_all(received[1])
            with suppress(ChannelClosedError):  # receiving says so, too
                self._take(received[0])

    def _take(self, message: Message) -> None:
        """Take what a viewer says. Raises ChannelClosedError."""
        if not isinstance(message, WantCapture) or self._session is not None:
            self._end()
            return
        records = self._workers.forwarding()
        strange = [name for name in message.ports if not any(_is(record, name) for record in records)]
        if strange:
            self._end(f"no port {strange[0]!r} forwards now; supervisor status lists the ports")
            return
        size = ring_bytes(len(message.ports) or len(records))
        self._session = Session(message, size, {})
        if self._viewer is not None:
            self._viewer.send(Reply(True, None))
        log.info("a capture of %s begins", ", ".join(message.ports) or "all ports")
        self._look_at = 0.0

    def _give(self, session: Session) -> None:
        for record in self._workers.forwarding():
            wanted = not session.wanted.ports or any(_is(record, name) for name in session.wanted.ports)
            if wanted and session.given.get(record.port) != record.incarnation:
                try:
                    self._give_ring(session, record)
                except (ChannelClosedError, LocalError, OSError) as error:
                    self._end(f"the capture cannot go on: {error}")
                    return

    def _give_ring(self, session: Session, record: PortRecord) -> None:
        ring = _core.flood_create(session.ring_bytes, record.port, record.epoch)
        try:
            if not self._workers.tell(record.incarnation, Capture(*session.wanted[1:]), (ring,)):
                return
            session.given[record.port] = record.incarnation
            if self._viewer is not None:
                named = CaptureRing(record.port, record.epoch, record.name, record.transport)
                self._viewer.send(named, (ring,))
        finally:
            os.close(ring)

    def _end(self, why: str | None = None) -> None:
        viewer, self._viewer = self._viewer, None
        session, self._session = self._session, None
        self._look_at = float("inf")
        if viewer is not None and why is not None:
            self._refuse(viewer, why)
        elif viewer is not None:
            viewer.close()
        if session is not None:
            log.info("the capture of %s has ended", ", ".join(session.wanted.ports) or "all ports")
            for served in session.given.values():
                self._workers.tell(served, CaptureOver())


def _is(record: PortRecord, name: str) -> bool:
    return name in (record.name, str(record.port))

"""The session with a front-end over its socket, which survives the loss of its worker.

Theory of operation. A worker may be killed at any instant, and the front-end must not notice. So a message
stays in the socket while it is handled (MSG_PEEK, which returns its descriptors, too), and is taken out when
all its effects are complete:

    look
    apply
    keep                 send the session and its descriptors to the supervisor
    note                 the number of the kept state, in the port's stats page
    note and answer      that it is answered, by its digest
    take out and note    that none is answered and still there

A successor begins with the kept state. If the message was not taken out, it is still there: applying it again
changes nothing, and if it was answered already, it is only taken out. Noting and answering is one call of the
core, so that a worker can hardly be killed in between, which would leave the front-end without its answer. If
the noted number is newer than the kept state, the supervisor was not reached, and the session cannot go on.

A partial message is taken out as it comes, since it keeps the socket readable, and a loop could not wait for
the rest. No known front-end sends one; if the worker is lost in the middle of it, the front-end has to
connect again.
"""

import binascii
import os
import socket
import struct
from collections.abc import Callable

from forwarder._core import Engine
from forwarder.channel import close_all, descriptors_in, unblock
from forwarder.errors import PeerError
from forwarder.vhost_session import VhostSession
from workers.vhost.device import EngineDevice
from workers.vhost.messages import HEADER, MOST_DESCRIPTORS, payload_bytes, takes_descriptors
from workers.vhost.protocol import Machine
from workers.vhost.state import SessionState

AT_ONCE = 64
"""Messages read in one turn, so that a front-end cannot keep the worker from forwarding."""

_ANCILLARY = socket.CMSG_SPACE(MOST_DESCRIPTORS * struct.calcsize("i"))

Keep = Callable[[int, VhostSession, tuple[int, ...]], None]
"""Called with the number of the state, the session and its descriptors."""


class Session:
    """One front-end."""

    def __init__(self, engine: Engine, vm: int, keep: Keep) -> None:
        """``vm`` is the connected socket; the caller closes it."""
        self._engine = engine
        self._keep = keep
        self._socket = socket.socket(fileno=os.dup(vm))
        unblock(self._socket)
        self._state = SessionState(EngineDevice(engine))
        self._machine = Machine(self._state)
        self._kept = self._state.kept()
        self._number, self._answered = engine.vhost_noted()
        self._begun = b""
        """A partial message and its descriptors."""
        self._begun_descriptors: tuple[int, ...] = ()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def resume(self, number: int, session: VhostSession, descriptors: tuple[int, ...]) -> None:
        """Go on where another worker was lost. Raises PeerError or LocalError: it cannot be gone on with."""
        if number < self._number:
            raise PeerError("its last worker was lost before it had saved the session")
        self._number = number
        self._state.resume(session, descriptors)
        self._kept = self._state.kept()

    def keep_again(self) -> None:
        """Send the state to a new supervisor."""
        self._keep(self._number, *self._kept)

    def receive(self) -> None:
        """Handle messages that have arrived.

        Raises PeerError or LocalError with the reason if the session is over.
        """
        for _ in range(AT_ONCE):
            if not self._receive_one():
                return

    def close(self) -> None:
        """Close the session."""
        close_all((*self._kept[1], *self._state.released, *self._begun_descriptors))
        self._socket.close()

    def _receive_one(self) -> bool:
        if self._begun:
            return self._receive_rest()
        header, _ = self._read(HEADER.size, socket.MSG_PEEK, ancillary=0)
        if not header:
            return False
        if len(header) < HEADER.size:
            return self._receive_rest()
        size = HEADER.size + payload_bytes(header)
        data, _ = self._read(size, socket.MSG_PEEK, ancillary=0)
        if len(data) < size:
            return self._receive_rest()
        descriptors: tuple[int, ...] = ()
        if takes_descriptors(header, data[HEADER.size :]):
            # Only then: Linux returns the next message's descriptors with a peek at one without.
            descriptors = self._read(size, socket.MSG_PEEK)[1]
        if self._answered != _digest(data):
            self._handle(data, descriptors)
        else:
            close_all(descriptors)
        self._take_out(size)
        return True

    def _receive_rest(self) -> bool:
        """Take a part of a message out, and handle the message when it is complete."""
        size = HEADER.size
        if len(self._begun) >= size:
            size += payload_bytes(self._begun[:size])
        if len(self._begun) < size:
            data, descriptors = self._read(size - len(self._begun), 0)
            self._begun += data
            self._begun_descriptors += descriptors
            if len(self._begun_descriptors) > MOST_DESCRIPTORS:
                raise PeerError("more descriptors than belong to any message")
            return bool(data)
        data, descriptors = self._begun, self._begun_descriptors
        self._begun, self._begun_descriptors = b"", ()
        self._handle(data, descriptors)
        self._take_out(0)
        return True

    def _take_out(self, size: int) -> None:
        self._engine.vhost_take_out(self._socket.fileno(), size)
        self._answered = 0

    def _handle(self, data: bytes, descriptors: tuple[int, ...]) -> None:
        reply = self._machine.receive(data[: HEADER.size], data[HEADER.size :], descriptors)
        kept = self._state.kept()
        if kept != self._kept:
            self._kept = kept
            self._number += 1
            self._keep(self._number, *kept)
            self._engine.vhost_note(self._number)
        close_all(self._state.released)
        self._state.released.clear()
        if reply:
            self._send(reply, _digest(data))

    def _send(self, reply: bytes, digest: int) -> None:
        try:
            sent = self._engine.vhost_answer(self._socket.fileno(), digest, reply)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise PeerError(f"answering the VM: {error.strerror}") from None
        if sent < len(reply):
            raise PeerError("the VM does not read its answers")

    def _read(self, size: int, flags: int, ancillary: int = _ANCILLARY) -> tuple[bytes, tuple[int, ...]]:
        """Return bytes and descriptors; no bytes if there is nothing now. Raises PeerError at the end."""
        try:
            data, control, _, _ = self._socket.recvmsg(size, ancillary, flags | socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return b"", ()
        except OSError as error:
            raise PeerError(f"the VM's link: {error.strerror}") from None
        if not data:
            raise PeerError(f"the VM closed the link{self._machine.hint()}")
        return data, tuple(descriptors_in(control))


def _digest(data: bytes) -> int:
    """Return a number that is never 0."""
    return binascii.crc32(data) | 1

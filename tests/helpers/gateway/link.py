"""A VM by hand that speaks DHCP: frames in and out of a stream socket of a switch with a gateway."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from gateway.lan.frames import Datagram, udp
from tests.helpers.gateway import dhcp_client
from tests.helpers.gateway.dhcp_client import ASKED, DISCOVER, REQUEST, SERVER
from tests.helpers.guests.waiting import PATIENCE

EVERYBODY = b"\xff" * 6
AGAIN_S = 2.0


class Link:
    """A VM by hand: frames in and out of a stream socket of the switch."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        self._data = b""

    def close(self) -> None:
        """Unplug."""
        self.sock.close()

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(struct.pack(">I", len(frame)) + frame for frame in frames))

    def receive(self) -> bytes:
        """Return the next frame. Raises TimeoutError."""
        while len(self._data) < 4 or len(self._data) < 4 + int.from_bytes(self._data[:4], "big"):
            more = self.sock.recv(1 << 16)
            assert more, "the switch has closed the link"
            self._data += more
        end = 4 + int.from_bytes(self._data[:4], "big")
        frame, self._data = self._data[4:end], self._data[end:]
        return frame

    def lease(self, mac: bytes) -> str:
        """Ask for a lease; return the address."""
        offered = self._ask(dhcp_client.request(DISCOVER, mac), mac)
        taken = {ASKED: socket.inet_aton(offered.address), SERVER: offered.options[SERVER]}
        return self._ask(dhcp_client.request(REQUEST, mac, taken), mac).address

    def _ask(self, data: bytes, mac: bytes) -> dhcp_client.Reply:
        """Ask, and again until there is an answer (RFC 2131, section 4.1). Raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while True:
            self.send(dhcp_frame(mac, data))
            try:
                return self.answer(AGAIN_S)
            except TimeoutError:
                if time.monotonic() > end:
                    raise

    def answer(self, within: float = PATIENCE) -> dhcp_client.Reply:
        """Wait for an answer of the DHCP server. Raises TimeoutError."""
        end = time.monotonic() + within
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            frame = self.receive()
            if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:38] == b"\0\x43\0\x44":
                return dhcp_client.read(frame[42:])
        raise TimeoutError("no answer of the DHCP server")


def dhcp_frame(mac: bytes, data: bytes) -> bytes:
    everybody = socket.inet_aton("255.255.255.255")
    return udp(mac, Datagram(EVERYBODY, bytes(4), everybody, 68, 67, data))

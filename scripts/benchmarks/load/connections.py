"""Load for the benchmark of the gateway: a server, a client that connects again and again, and two attacks.

serve ADDRESS PORT · connect ADDRESS PORT SECONDS · scan|forge OWN TO GATEWAY-MAC RATE
"""

import contextlib
import itertools
import random
import socket
import struct
import sys
import threading
import time

ECHO_EVERY = 10


def serve(address: str, port: str) -> None:
    """Answer connections and datagrams at one port."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, int(port)))
    threading.Thread(target=_echo, args=(datagrams,), daemon=True).start()
    listener = socket.create_server((address, int(port)), backlog=512)
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        with sock, contextlib.suppress(OSError):
            sock.recv(10)
            sock.sendall(b"ok")
            sock.recv(10)


def _echo(sock: socket.socket) -> None:
    while True:
        sock.sendto(*sock.recvfrom(2048))


def connect(address: str, port: str, seconds: str) -> None:
    """Connect for a while; print failures, the median of echoes, and the seconds of each connection."""
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.connect((address, int(port)))
    echo.settimeout(1.0)
    failed, times, echoes = 0, [], []
    end = time.monotonic() + float(seconds)
    while (begin := time.monotonic()) < end:
        try:
            with socket.create_connection((address, int(port)), 5) as sock:
                sock.sendall(b"hi")
                if sock.recv(10) != b"ok":
                    raise ConnectionError
        except OSError:
            failed += 1
            continue
        times.append(time.monotonic() - begin)
        if len(times) % ECHO_EVERY == 0:
            begin = time.monotonic()
            with contextlib.suppress(OSError):
                echo.send(b"echo")
                echo.recv(10)
                echoes.append(time.monotonic() - begin)
    middle = sorted(echoes)[len(echoes) // 2] if echoes else 0.0
    print(failed, f"{middle:.7f}", *(f"{seconds:.7f}" for seconds in times))


def attack(kind: str, own: str, to: str, gateway: str, rate: str) -> None:
    """Send packets at a rate until killed."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind(("eth0", 0))
    head = bytes.fromhex(gateway.replace(":", "")) + sock.getsockname()[4] + b"\x08\x00"
    make = _syn if kind == "scan" else _forged
    frames = [head + make(own, to, number) for number in range(4000)]
    begin = time.monotonic()
    for number, frame in enumerate(itertools.cycle(frames)):
        with contextlib.suppress(OSError):
            sock.send(frame)
        while number > (time.monotonic() - begin) * float(rate):
            time.sleep(0.001)


def _syn(own: str, to: str, number: int) -> bytes:
    source, destination = socket.inet_aton(own), socket.inet_aton(to)
    bare = struct.pack(">HHIIBBHHH", 1024 + number, 1 + number, 1, 0, 0x50, 2, 64240, 0, 0)
    checksum = _sum(source + destination + struct.pack(">HH", 6, len(bare)) + bare)
    return _ip(source, destination, 6, bare[:16] + struct.pack(">H", checksum) + bare[18:])


def _forged(_: str, to: str, number: int) -> bytes:
    ports = random.Random(number)
    source = bytes((203, 0, 113, number % 256))
    body = struct.pack(">HHHH", ports.randrange(1, 65536), 9090, 9, 0) + b"x"
    return _ip(source, socket.inet_aton(to), 17, body)


def _ip(source: bytes, destination: bytes, number: int, body: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0) + source + destination
    return header[:10] + struct.pack(">H", _sum(header)) + header[12:] + body


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    _, what, *words = sys.argv
    if what == "serve":
        serve(*words)
    elif what == "connect":
        connect(*words)
    else:
        attack(what, *words)

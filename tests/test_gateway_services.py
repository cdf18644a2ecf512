"""gvproxy's HTTP API: its JSON and its status codes, and that nobody can hold it up."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.errors import LocalError
from forwarder.loop import Loop
from gateway.forwards import Forward
from gateway.http_server import BODY, CONNECTIONS, Answer, Hijack, HttpServer
from gateway.services import Services, leases
from tests.guests import requirements
from tests.guests.fixtures import StartSwitch, short_directory

TCP = Forward.parse("tcp:127.0.0.1:8080:192.168.127.2:80")
LEASES = """1795299627 52:54:00:00:77:01 192.168.127.61 guest1 01:52:54:00:00:77:01
1795299627 5a:94:ef:e4:0c:ee 192.168.127.2 * *
duid 00:01:00:01
1795299627 5 fd00::5 * *
"""


class Table:
    """Forwards as the relay has them."""

    def __init__(self) -> None:
        self.forwards = [TCP]
        self.services = Services(lambda: self.forwards, self.add, self.forwards.remove, lambda: LEASES)

    def add(self, forward: Forward) -> None:
        if forward.near in [each.near for each in self.forwards]:
            raise LocalError("there already")
        self.forwards.append(forward)

    def post(self, path: str, **body: str) -> Answer:
        return self.services.handle("POST", f"/services/forwarder/{path}", json.dumps(body).encode())

    def get(self, path: str) -> Any:
        answer = self.services.handle("GET", path, b"")
        assert answer.status == 200
        return json.loads(answer.body)


def test_forwards_are_exposed_listed_and_unexposed() -> None:
    table = Table()
    assert table.post("expose", local=":2222", remote="192.168.127.2:22").status == 200
    assert table.post("expose", local="127.0.0.1:53", remote="192.168.127.2:53", protocol="udp").status == 200
    unix = {"local": "/run/x.sock", "remote": "tcp://192.168.127.2:5", "protocol": "unix"}
    assert table.post("expose", **unix).status == 200
    assert table.get("/services/forwarder/all") == [
        unix,
        {"local": "0.0.0.0:2222", "remote": "192.168.127.2:22", "protocol": "tcp"},
        {"local": "127.0.0.1:53", "remote": "192.168.127.2:53", "protocol": "udp"},
        {"local": "127.0.0.1:8080", "remote": "192.168.127.2:80", "protocol": "tcp"},
    ]
    assert table.post("unexpose", local=":2222").status == 200
    assert table.post("unexpose", local="/run/x.sock", protocol="unix").status == 200
    assert len(table.forwards) == 2


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 400, "no JSON"),
        (b'{"local": "127.0.0.1:8080", "remote": "192.168.127.2:80"}', 500, "there already"),
        (b'{"local": "x", "remote": "y", "protocol": "npipe"}', 500, "unknown protocol npipe"),
        (b'{"local": "/x", "remote": "ssh-tunnel://y", "protocol": "unix"}', 500, "not implemented"),
        (b'{"local": "x", "remote": "y"}', 500, "forward"),
    ],
)
def test_a_bad_request_is_one_line(body: bytes, status: int, line: str) -> None:
    answer = Table().services.handle("POST", "/services/forwarder/expose", body)
    assert answer.status == status
    assert line in answer.body.decode()


def test_what_is_not_there_or_not_posted() -> None:
    table = Table()
    assert table.services.handle("GET", "/nothing", b"").status == 404
    assert table.services.handle("GET", "/services/forwarder/expose", b"").status == 400
    assert table.post("unexpose", local="127.0.0.1:9").body == b"proxy not found\n"


def test_leases_are_ipv4_addresses_with_their_macs() -> None:
    wanted = {"192.168.127.61": "52:54:00:00:77:01", "192.168.127.2": "5a:94:ef:e4:0c:ee"}
    assert leases(LEASES) == wanted
    assert Table().get("/services/dhcp/leases") == Table().get("/leases") == wanted


@pytest.fixture
def served() -> Iterator[str]:
    """The path of a server that returns what it gets, in a loop of its own; ``/echo`` ends HTTP."""

    def handle(method: str, target: str, body: bytes) -> Answer | Hijack:
        return Hijack(echo) if target == "/echo" else Answer(200, body or target.encode())

    def echo(sock: socket.socket, sent: bytes) -> None:
        with sock:
            assert not sock.getblocking()
            sock.send(b"echo " + sent)

    loop, done = Loop(), threading.Event()
    with short_directory() as directory:
        path = str(directory / "http.sock")
        server = HttpServer(loop, path, handle)

        def run() -> None:
            while not done.is_set():
                loop.turn(0.01)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield path
        finally:
            done.set()
            thread.join()
            server.close()
            loop.close()
            assert not Path(path).exists()


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(path)
    return sock


def read(sock: socket.socket, until: bytes) -> bytes:
    data = b""
    while until not in data and (more := sock.recv(65536)):
        data += more
    return data


def test_requests_in_pieces_and_in_a_row_are_answered_in_order(served: str) -> None:
    assert stat.S_IMODE(Path(served).stat().st_mode) == 0o600
    with connect(served) as sock:
        sock.sendall(b"GET /one HT")
        sock.sendall(b"TP/1.1\r\nHost: x\r\n\r\nGET /two HTTP/1.1\r\nHost: x\r\n\r\n")
        data = read(sock, b"/two")
    assert data.index(b"/one") < data.index(b"/two")


def test_a_head_has_no_body_and_a_close_is_a_close(served: str) -> None:
    with connect(served) as sock:
        sock.sendall(b"HEAD /one HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read(sock, b"\r\n\r\n").endswith(b"\r\n\r\n")
        sock.sendall(b"GET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read(sock, b"nothing").endswith(b"/two")


def test_a_socket_that_is_handed_over_has_what_was_sent_and_is_not_counted(served: str) -> None:
    for _ in range(CONNECTIONS + 1):
        with connect(served) as sock:
            sock.sendall(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\n\r\n\0\1\2")
            assert read(sock, b"\2").endswith(b"/oneecho \0\1\2")
            assert sock.recv(1) == b""


def test_a_large_body_comes_back_whole_to_a_client_that_reads_late(served: str) -> None:
    body = b"x" * (BODY - 1) + b"!"
    with connect(served) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BODY + body)
        assert read(sock, b"!").endswith(body)


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (BODY + 10),
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_what_is_no_request_is_refused_and_the_next_one_is_served(served: str, request_: bytes) -> None:
    with connect(served) as sock:
        try:
            sock.sendall(request_)
            assert read(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 4")
        except OSError:
            pass  # hung up before it had read everything
    with connect(served) as sock:
        sock.sendall(b"GET /fine HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"/fine" in read(sock, b"/fine")


def test_idle_clients_are_bounded(served: str) -> None:
    idle = [connect(served) for _ in range(CONNECTIONS)]
    with connect(served) as sock:
        assert sock.recv(1) == b""
    for each in idle:
        each.close()


@pytest.mark.guest
def test_curl_exposes_a_port_of_a_running_switch(switch: StartSwitch) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY, "curl"))
    with short_directory() as directory:
        path = directory / "services.sock"
        running = switch("--gateway", "--services", f"unix://{path}")

        def curl(where: str, *words: str) -> str:
            command = ["curl", "--silent", "--max-time", "10", "--unix-socket", str(path)]
            command += [*words, f"http://gvproxy/services/{where}"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        wanted = {"local": "127.0.0.1:0", "remote": "192.168.127.2:22", "protocol": "tcp"}
        assert curl("forwarder/expose", "--data", json.dumps(wanted)) == ""
        (entry,) = json.loads(curl("forwarder/all"))
        assert entry["remote"] == "192.168.127.2:22"
        assert running.json("forward", "list")["forwards"] == [f"tcp:{entry['local']}:{entry['remote']}"]
        assert curl("forwarder/unexpose", "--data", json.dumps({"local": entry["local"]})) == ""
        assert curl("forwarder/all") == "[]\n"
        assert json.loads(curl("dhcp/leases")) == {}
        running.stop()
        assert not path.exists()

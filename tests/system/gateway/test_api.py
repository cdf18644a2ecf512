"""gvproxy's HTTP API of a running switch, asked by curl: zones, figures, tunnels; what guests see of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.api.http_connection import BODY
from tests.helpers.gateway.place import FOUND, GATEWAY, GUEST, MAC, RESOLVER, Place, resolver
from tests.helpers.gateway.processes import process
from tests.helpers.guests.machine import CommandError
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest
either = pytest.mark.parametrize("place", ["user"], indirect=True)
"""Whose switch it is makes no difference to what the API says."""
LISTEN = "0A"
ZONE = {
    "Name": "crc.testing.",
    "Records": [
        {"Name": "api", "IP": "10.0.0.1"},
        {"Name": "deep.er", "IP": "10.0.0.5"},
        {"Name": "v6", "IP": "fd00::1"},
        {"Name": "own", "IP": "10.0.0.8"},
    ],
    "DefaultIP": "10.0.0.2",
}
CLOSED = {"Name": "closed.testing.", "Records": [{"Name": "one.two", "IP": "10.0.0.3"}]}


class Api(NamedTuple):
    """The API of one switch."""

    switch: Switch

    @property
    def path(self) -> Path:
        return self.switch.directory / "services.sock"

    def ask(self, where: str, *words: str) -> tuple[int, str]:
        """Have curl ask; return status and body."""
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            f"{PATIENCE}",
            "--unix-socket",
            str(self.path),
        ]
        command += ["--unix-socket", str(self.path)]
        command += ["--write-out", "\n%{http_code}", *words, f"http://gvproxy{where}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def get(self, where: str) -> Any:
        status, body = self.ask(where)
        assert status == 200, body
        return json.loads(body)

    def post(self, where: str, value: object) -> None:
        assert self.ask(where, "--data", json.dumps(value)) == (200, "")

    def connect(self, request: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.path))
        sock.sendall(f"{request} HTTP/1.1\r\nHost: gvproxy\r\n\r\n".encode())
        return sock


@pytest.fixture
def start(place: Callable[..., Place]) -> Callable[..., tuple[Place, Api]]:
    """Give a factory of a place whose gateway serves the API."""

    def make(*flags: str) -> tuple[Place, Api]:
        here = place(*flags, services=True)
        return here, Api(here.switch)

    return make


def kill(switch: Switch, what: str) -> None:
    """Kill a process of the switch, and wait for the next one and for a gateway that serves."""
    before = process(switch, what)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: process(switch, what) not in (before, 0), f"another {what}")
    wait_for(lambda: not switch.command("forward", "list", check=False).returncode, "a gateway that serves")
    switch.wait_live(2)


def look_up(guest: Namespace, name: str, kind: str = "a") -> str:
    """Return the address of ``name``, or what the resolver says instead, asked by a guest."""
    try:
        answer = guest.run(f"busybox nslookup -type={kind} {name} {GATEWAY}")
    except CommandError as error:
        answer = str(error)
    found = re.search(r"Address: ([0-9a-f.:]+)\s*$", answer)
    other = re.search(r"NXDOMAIN|REFUSED|SERVFAIL|no servers could be reached", answer)
    return found.group(1) if found else other.group() if other else "No answer"


def answers(guest: Namespace) -> dict[str, str]:
    """Return what a guest is told of the names in the two zones, and below and beside them."""
    return {name: look_up(guest, f"{name}.testing", "aaaa" if name == "v6.crc" else "a") for name in IN_FORCE}


IN_FORCE = {
    "api.crc": "10.0.0.1",
    "else.crc": "10.0.0.2",
    "a.b.crc": "10.0.0.2",
    "one.two.closed": "10.0.0.3",
    "two.closed": "No answer",  # nothing is there, but there is something below (RFC 8020)
    "no.closed": "NXDOMAIN",
    "deep.er.crc": "10.0.0.5",
    "er.crc": "10.0.0.2",
    "v6.crc": "fd00::1",
    "own.crc": "10.0.0.9",  # a --dns-record, which comes first
    "crc": FOUND,
    "xcrc": FOUND,
}


@either
def test_zones_are_in_force_at_once_and_outlive_the_gateway(
    start: Callable[..., tuple[Place, Api]],
) -> None:
    here, api = start("--dns-record", "own.crc.testing=10.0.0.9", "--resolver", RESOLVER)
    with resolver(here.internet):
        check_zones(here, api)


def check_zones(here: Place, api: Api) -> None:
    own = api.get("/services/dns/all")
    assert [zone["Name"] for zone in own] == ["containers.internal.", "docker.internal."]
    assert {"Name": "gateway", "IP": GATEWAY} in own[0]["Records"]
    before = dict.fromkeys(IN_FORCE, FOUND) | {"own.crc": "10.0.0.9", "v6.crc": "No answer"}
    assert answers(here.guest) == before
    api.post("/services/dns/add", ZONE)
    api.post("/services/dns/add", CLOSED)
    assert answers(here.guest) == IN_FORCE
    listed = api.get("/services/dns/all")
    assert listed == [*own, ZONE, CLOSED | {"DefaultIP": ""}]
    for victim in ("gateway", "gateway.inside"):
        kill(here.switch, victim)
        assert answers(here.guest) == IN_FORCE
        assert api.get("/services/dns/all") == listed
    assert look_up(here.guest, "gateway.containers.internal") == GATEWAY
    api.post("/services/dns/add", {"Name": "crc.testing.", "Records": [{"Name": "new", "IP": "10.0.0.4"}]})
    assert look_up(here.guest, "new.crc.testing") == "10.0.0.4"
    assert look_up(here.guest, "else.crc.testing") == "NXDOMAIN"


@either
def test_many_zones_at_once_are_all_in_force(start: Callable[..., tuple[Place, Api]]) -> None:
    here, api = start()
    clients = []
    for number in range(8):
        body = json.dumps({"Name": f"z{number}.test.", "DefaultIP": f"10.0.1.{number}"})
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(api.path))
        head = f"POST /services/dns/add HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(f"{head}{body}".encode())
        clients.append(sock)
    for sock in clients:
        with sock:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    assert len(api.get("/services/dns/all")) == 10
    assert [look_up(here.guest, f"x.z{number}.test") for number in (0, 7)] == ["10.0.1.0", "10.0.1.7"]


@either
def test_a_wrong_request_gets_gvproxys_status_and_one_line_and_changes_nothing(
    start: Callable[..., tuple[Place, Api]], tmp_path: Path
) -> None:
    here, api = start()
    large = tmp_path / "large"
    large.write_bytes(b'{"Name": "' + b"x" * BODY + b'."}')
    long = {"Name": "long.", "Records": [{"Name": f"{'n' * 60}{n}", "IP": "10.0.0.1"} for n in range(900)]}
    (tmp_path / "long").write_text(json.dumps(long))
    before = process(here.switch, "gateway")
    add = "/services/dns/add"
    for where, words, status, line in (
        (add, ["--data", "{"], 400, "JSON"),
        (add, ["--data", ""], 400, "JSON"),
        (add, ["--data", '{"Name": "a\\nserver=10.0.0.1"}'], 400, "is no name"),
        (add, ["--data", '{"Name": "a", "Records": [{"Name": "x,y", "IP": "10.0.0.1"}]}'], 400, "is no name"),
        (add, ["--data", '{"Name": "a", "DefaultIP": "fe80::1%x\\ny"}'], 400, "has a zone"),
        (add, ["--data", '{"Name": "a", "Records": [{"Regexp": ".", "IP": "10.0.0.1"}]}'], 400, "Regexp"),
        (add, ["--data-binary", f"@{large}"], 413, f"at most {BODY} bytes"),
        (add, ["--data-binary", f"@{tmp_path / 'long'}"], 500, "remove something first"),
        (add, [], 400, "post only"),
        (add, ["--request", "PUT", "--data", json.dumps(ZONE)], 400, "post only"),
        ("/services/dns", [], 404, "there is no /services/dns"),
        ("/nothing", ["--data", "{}"], 404, "there is no /nothing"),
        ("/tunnel", [], 500, "ip is mandatory"),
        ("/tunnel?ip=10.0.0.1&port=22", [], 500, "outside of the gateway's"),
        (f"/tunnel?ip={GATEWAY}&port=53", [], 500, "not a guest's"),
    ):
        got, body = api.ask(where, *words)
        assert (got, line in body, body.count("\n")) == (status, True, 1), (where, words, body)
    assert len(api.get("/services/dns/all")) == 2
    assert process(here.switch, "gateway") == before


@either
def test_addresses_and_traffic_are_those_of_the_switch_and_never_fall(
    start: Callable[..., tuple[Place, Api]],
) -> None:
    here, api = start()
    ports = {port["name"]: port["port"] for port in here.switch.ports()}
    (guest,) = (name for name in ports if name != "gateway")
    assert api.get("/cam") == {MAC: ports[guest]}

    def agree() -> dict[str, Any] | None:
        stats = api.get("/stats")
        rows = {port["name"]: port for port in here.switch.ports()}
        same = (
            stats["BytesReceived"] == rows[guest]["rx"]["bytes"]
            and stats["BytesSent"] == rows[guest]["tx"]["bytes"]
            and stats["NICs"]["Rx"]["Packets"] == rows["gateway"]["tx"]["frames"]
            and stats["NICs"]["Tx"]["Packets"] == rows["gateway"]["rx"]["frames"]
        )
        return stats if same else None

    before = wait_for(agree, "the figures of API and switch to agree")
    assert before["BytesReceived"] > 0
    assert before["NICs"]["Rx"]["Packets"] > 0
    here.guest.ping(GATEWAY, size=1000)
    wait_for(lambda: api.get("/stats")["BytesSent"] >= before["BytesSent"] + 1000, "the ping to be counted")
    kill(here.switch, "gateway")
    here.switch.command("detach", guest)
    wait_for(lambda: len(here.switch.ports()) == 1, "the guest to go")
    after = api.get("/stats")
    assert after["BytesSent"] >= before["BytesSent"] + 1000
    assert api.get("/cam") == {}


@either
def test_more_addresses_than_fit_a_message_are_an_error(
    start: Callable[..., tuple[Place, Api]],
) -> None:
    here, api = start()
    before = {port["name"] for port in here.switch.ports()}
    with contextlib.closing(here.switch.connect("unix")) as vm:
        (name,) = {port["name"] for port in here.switch.wait_live(3)} - before
        here.switch.command("set", name, "limit-macs=5000", "limit-broadcast=none")
        for number in range(4000):
            source = bytes([2, 0, 0, 0, *number.to_bytes(2, "big")])
            vm.send(b"\xff" * 6 + source + b"\x88\xb5" + bytes(46))
        wait_for(lambda: api.ask("/cam")[0] == 503, "more addresses than fit")
        assert "supervisor macs" in api.ask("/cam")[1]
        assert len(here.switch.json("macs")["macs"]) > 3000
    wait_for(lambda: api.ask("/cam")[0] == 200, "the addresses to go with their VM")


@either
def test_a_supervisor_that_does_not_answer_is_503_and_its_late_answers_are_dropped(
    start: Callable[..., tuple[Place, Api]],
) -> None:
    here, api = start()
    cam = api.get("/cam")
    supervisor = int((here.switch.runtime_dir / "supervisor.lock").read_text().split()[0])
    os.kill(supervisor, signal.SIGSTOP)
    try:
        status, body = api.ask("/cam")
        assert (status, body.count("\n")) == (503, 1)
        assert api.ask("/services/forwarder/all") == (200, "[]\n")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert "BytesSent" in api.get("/stats")
    assert api.get("/cam") == cam


@either
def test_a_tunnel_carries_a_connection_to_a_guest(start: Callable[..., tuple[Place, Api]]) -> None:
    here, api = start()
    port = here.serve(here.guest, GUEST, "guest")
    with api.connect(f"GET /tunnel?ip={GUEST}&port={port}") as sock:
        assert sock.recv(2) == b"OK"
        wait_for(lambda: api.get("/stats")["TCP"]["CurrentConnected"] == 1, "the connection to be counted")
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        data = b""
        while more := sock.recv(65536):
            data += more
    assert data.startswith(b"HTTP/1.0 200")
    assert data.endswith(b"guest")
    with api.connect(f"GET /tunnel?ip={GUEST}&port=9") as sock:
        assert sock.recv(2) == b"OK"
        assert ended(sock)
    wait_for(lambda: api.get("/stats")["TCP"]["CurrentConnected"] == 0, "the connections to end")


def ended(sock: socket.socket) -> bool:
    """Whether the next thing that comes is the end, as a reset or not."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_the_api_cannot_be_reached_from_inside_a_vm(start: Callable[..., tuple[Place, Api]]) -> None:
    here, api = start()
    assert api.path.stat().st_mode & 0o777 == 0o600
    inside = process(here.switch, "gateway.inside")
    assert {port for address, port in listening(inside, None) if not is_loopback(address)} == {53}
    for pid in here.switch.processes():
        if os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{inside}/ns/net"):
            assert listening(pid, sockets(pid)) == [], (
                "what the host's loopback has, guests reach by the alias"
            )
    for port in (80, 8080):
        with pytest.raises(CommandError):
            here.get(here.guest, f"http://{GATEWAY}:{port}/services/forwarder/all")


def sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue
    return {link.removeprefix("socket:[").removesuffix("]") for link in links}


def listening(pid: int, inodes: set[str] | None) -> list[tuple[str, int]]:
    """Return (address, port) of the TCP listeners that a process's namespace has, or the process."""
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTEN and (inodes is None or words[9] in inodes):
                address, _, port = words[1].partition(":")
                found.append((address, int(port, 16)))
    return found


def is_loopback(address: str) -> bool:
    """Whether a word of ``/proc/net/tcp`` or ``tcp6`` is 127.0.0.1 or ::1."""
    return address in ("0100007F", "0" * 24 + "01000000")

"""gvproxy's HTTP API: its JSON and its status codes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest

from forwarder.counted import in_order
from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.messages import Reply
from gateway.api.carry_over import By
from gateway.api.http_connection import Answer, Hijack
from gateway.api.names import Zone
from gateway.api.services import Result, Services
from gateway.api.zones import Zones
from gateway.relay.forwards import Forward, Forwards
from gateway.relay.policy import Address
from tests.helpers.gateway.policies import LAN

CLIENT: By = {"client": {"uid": 9, "pid": 90}}
TCP = Forward.parse("tcp:127.0.0.1:8080:192.168.127.2:80")
LEASES = {"192.168.127.61": "52:54:00:00:77:01", "192.168.127.2": "5a:94:ef:e4:0c:ee"}
TRAFFIC = {
    "vms": {"rx": {"frames": 1, "bytes": 20}, "tx": {"frames": 3, "bytes": 40}},
    "gateway": {"rx": {"frames": 5, "bytes": 60}, "tx": {"frames": 7, "bytes": 80}},
}


class Table:
    """A gateway without its sockets: what it is asked is answered when the test says so."""

    def __init__(self) -> None:
        self.table = Forwards(LAN)
        self.table.add(TCP)
        self.asked: list[tuple[str, Future[Reply]]] = []
        self.carried: list[tuple[Address, int, bytes]] = []
        self.kept = 0
        """How often the supervisor was asked whether it has kept what it was told."""
        self.keeps = Reply(True, True)
        self.taken: set[str] = set()
        """Where another program listens."""
        self.in_force: list[tuple[Zone, ...]] = []
        self._zones = Zones((), self._check, self._in_force)
        self.changed_by: list[By] = []
        """Who asked for each change, in order."""
        self.services = Services(self)

    def forwards(self) -> list[Forward]:
        return list(self.table)

    wanted_forwards = forwards

    def add_forward(self, forward: Forward, by: By) -> Future[Forward | LocalError]:
        self.changed_by.append(by)
        added: Future[Forward | LocalError] = Future()
        if forward.near in self.taken:
            added.set_result(LocalError(f"cannot listen at {forward.near}: another program listens there"))
            return added
        real = forward if forward.port or forward.path else forward._replace(port=40000)
        self.table.add(real)
        added.set_result(real)
        return added

    def remove_forward(self, forward: Forward, by: By) -> None:
        self.changed_by.append(by)
        self.table.remove(forward)

    def leases(self) -> dict[str, str]:
        return LEASES

    def reserved(self) -> dict[str, str]:
        return {"192.168.127.1": "5a:94:ef:e4:0c:dd", "192.168.127.9": "52:54:00:00:00:09"}

    def zones(self) -> tuple[Zone, ...]:
        return self._zones.all()

    def add_zone(self, zone: Zone, by: By) -> None:
        self._zones.add(zone, by)

    def ask(self, what: str) -> Future[Reply]:
        if what == "kept":
            self.kept += 1
            kept: Future[Reply] = Future()
            kept.set_result(self.keeps)
            return kept
        self.asked.append((what, Future()))
        return self.asked[-1][1]

    def _in_force(self, zones: tuple[Zone, ...], by: By) -> None:
        self.in_force.append(zones)
        self.changed_by.append(by)

    def _check(self, zones: tuple[Zone, ...]) -> None:
        if len(zones) > 2:
            raise LocalError("too many")

    def figures(self) -> dict[str, dict[str, int]]:
        return in_order({"connections": 9, "denied": 2})

    def tunnel(self, guest: Address, port: int) -> Callable[[socket.socket], None]:
        if guest not in LAN.subnet:
            raise LocalError("no guest")
        return partial(self._carry, guest, port)

    def _carry(self, guest: Address, port: int, near: socket.socket) -> None:
        with near:
            self.carried.append((guest, port, near.recv(100)))

    def request(self, method: str, target: str, body: bytes = b"") -> Result:
        return self.services.handle(method, target, body, CLIENT)

    def answer(self, method: str, target: str, body: bytes = b"") -> Answer:
        answer = self.request(method, target, body)
        if isinstance(answer, Future):  # which waits for the saved state; here that answers at once
            answers: list[Answer] = []
            answer.add_done_callback(answers.append)
            (answer,) = answers
        assert isinstance(answer, Answer)
        return answer

    def post(self, path: str, **body: str) -> Answer:
        return self.answer("POST", f"/services/forwarder/{path}", json.dumps(body).encode())

    def get(self, path: str) -> Any:
        answer = self.answer("GET", path)
        assert answer.status == 200
        return json.loads(answer.body)

    def future(self, reply: Reply, method: str, target: str, body: bytes = b"") -> Answer:
        """Answer a request that asks the supervisor, which answers ``reply``."""
        future = self.request(method, target, body)
        assert isinstance(future, Future)
        answers: list[Answer] = []
        future.add_done_callback(answers.append)
        assert not answers
        self.asked.pop()[1].set_result(reply)
        return answers[0]


def test_forwards_are_exposed_listed_and_unexposed() -> None:
    table = Table()
    assert table.post("expose", local=":2222", remote="192.168.127.2:22").status == 200
    assert table.post("expose", local="127.0.0.1:53", remote="192.168.127.2:53", protocol="udp").status == 200
    unix = {"local": "/run/x.sock", "remote": "tcp://192.168.127.2:5", "protocol": "unix"}
    assert table.post("expose", **unix).status == 200
    assert table.get("/services/forwarder/all") == [
        unix,
        {"local": "127.0.0.1:53", "remote": "192.168.127.2:53", "protocol": "udp"},
        {"local": "127.0.0.1:8080", "remote": "192.168.127.2:80", "protocol": "tcp"},
        {"local": ":2222", "remote": "192.168.127.2:22", "protocol": "tcp"},
    ]
    assert table.post("unexpose", local=":2222").status == 200
    assert table.post("unexpose", local="/run/x.sock", protocol="unix").status == 200
    assert len(table.table) == 2


@pytest.mark.parametrize("local", ["[0:0:0:0:0:0:0:1]:9000", "[::0001]:9000", "127.0.0.1:09000"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_exposed_a_port_unexposes_it(protocol: str, local: str) -> None:
    table = Table()
    assert table.post("expose", local=local, remote="192.168.127.2:1", protocol=protocol).status == 200
    assert table.post("unexpose", local=local, protocol=protocol).status == 200
    assert list(table.table) == [TCP]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("path", ["forwarder/expose", "forwarder/unexpose", "dns/add"])
def test_json_is_utf_8_since_python_opens_files_for_other_encodings(path: str, encoding: str) -> None:
    text = '{"local": "127.0.0.1:8080", "remote": "192.168.127.2:80", "name": "x"}'
    assert Table().answer("POST", f"/services/{path}", text.encode(encoding)).status == 400


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b"{", 400, "not a JSON object"),
        (b"[]", 400, "not a JSON object"),
        (b'{"local": "127.0.0.1:8080", "remote": "192.168.127.2:80"}', 500, "proxy already running for tcp"),
        (b'{"local": "localhost:8080", "remote": "192.168.127.3:80"}', 500, "proxy already running for tcp"),
        (b'{"local": "example.org:8080", "remote": "192.168.127.2:80"}', 500, "names are not looked up"),
        (b'{"local": "x", "remote": "y", "protocol": "npipe"}', 500, "unknown protocol npipe"),
        (b'{"local": "/x", "remote": "ssh-tunnel://y", "protocol": "unix"}', 500, "not implemented"),
        (b'{"local": "8080", "remote": "y"}', 500, "has no port; write it like 127.0.0.1:8080 or :8080"),
        (b'{"local": 8080, "remote": "y"}', 400, "have to be text"),
        (b'{"local": ":80", "remote": ["192.168.127.2:80"]}', 400, "have to be text"),
        (b'{"local": "/x", "remote": "tcp://[", "protocol": "unix"}', 400, "Invalid IPv6 URL"),
        (b'{"local": "x", "remote": "y", "protocol": "\\ud800"}', 500, "unknown protocol"),
    ],
)
def test_a_bad_request_is_answered_with_one_line(body: bytes, status: int, line: str) -> None:
    answer = Table().answer("POST", "/services/forwarder/expose", body)
    assert answer.status == status
    assert line in answer.body.decode()
    assert answer.body.count(b"\n") == 1


def test_fields_of_any_case_and_whole_urls_are_taken_as_go_does() -> None:
    owner = Table()
    body = {"Local": "127.0.0.1:8081", "REMOTE": "192.168.127.2:80", "protocol": "tcp"}
    url = "http://gvproxy/services/forwarder"
    assert owner.answer("POST", f"{url}/expose?x=1", json.dumps(body).encode()).status == 200
    assert "127.0.0.1:8081" in [entry["local"] for entry in owner.get(f"{url}/all")]
    assert owner.answer("GET", "http://gvproxy", b"").status == 404
    assert owner.answer("GET", "http://[::1/services", b"").status == 400


def test_an_unknown_path_or_method_is_refused() -> None:
    table = Table()
    assert table.answer("GET", "/nothing").status == 404
    assert table.answer("GET", "/services/dns/").status == 404
    for path in ("forwarder/expose", "forwarder/unexpose", "dns/add"):
        assert table.answer("GET", f"/services/{path}") == Answer(
            400, b"post only\n", b"text/plain; charset=utf-8"
        )
    assert table.post("unexpose", local="127.0.0.1:9").body == b"proxy not found\n"


def test_leases_are_addresses_with_their_macs_and_with_the_gateways() -> None:
    wanted = LEASES | {"192.168.127.1": "5a:94:ef:e4:0c:dd", "192.168.127.9": "52:54:00:00:00:09"}
    assert Table().get("/services/dhcp/leases") == Table().get("/leases") == wanted


@pytest.mark.parametrize(("local", "port"), [(":80", 80), (":0", 40000)])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_local_without_a_host_is_every_address_of_both_families(
    local: str, port: int, protocol: str
) -> None:
    table = Table()
    assert table.post("expose", local=local, remote="192.168.127.2:80", protocol=protocol).status == 200
    assert [forward.near for forward in table.forwards()[1:]] == [
        f"{protocol}:0.0.0.0:{port}",
        f"{protocol}:[::]:{port}",
    ]
    listed = {"local": f":{port}", "remote": "192.168.127.2:80", "protocol": protocol}
    assert listed in table.get("/services/forwarder/all")
    again = table.post("expose", local=f":{port}", remote="192.168.127.2:80", protocol=protocol)
    assert again.body == f"proxy already running for {protocol} on :{port}\n".encode()
    assert table.post("unexpose", local=f":{port}", protocol=protocol).status == 200
    assert table.forwards() == [TCP]


def test_a_host_without_ipv6_listens_at_every_address_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.services.has_ipv6", lambda: False)
    table = Table()
    assert table.post("expose", local=":80", remote="192.168.127.2:80").status == 200
    assert table.forwards()[1:] == [Forward.parse("tcp:0.0.0.0:80:192.168.127.2:80")]
    assert table.post("unexpose", local=":80").status == 200


def test_a_port_that_one_family_cannot_bind_is_bound_for_neither() -> None:
    table = Table()
    table.taken.add("tcp:[::]:80")
    assert table.post("expose", local=":80", remote="192.168.127.2:80").status == 500
    assert table.forwards() == [TCP]


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]"])
def test_every_address_of_one_family_is_listed_as_that(address: str) -> None:
    table = Table()
    assert table.post("expose", local=f"{address}:80", remote="192.168.127.2:80").status == 200
    listed = {"local": f"{address}:80", "remote": "192.168.127.2:80", "protocol": "tcp"}
    assert listed in table.get("/services/forwarder/all")
    assert table.post("unexpose", local=f"{address}:80").status == 200


def test_localhost_is_the_loopback_and_found_again_by_both_names() -> None:
    table = Table()
    for remove in ("localhost:90", "127.0.0.1:90"):
        assert table.post("expose", local="localhost:90", remote="192.168.127.2:80").status == 200
        assert table.forwards()[1].near == "tcp:127.0.0.1:90"
        assert table.post("unexpose", local=remove).status == 200


def test_a_unix_socket_is_exposed_once() -> None:
    table = Table()
    unix = {"local": "/run/x.sock", "remote": "tcp://192.168.127.2:5", "protocol": "unix"}
    assert table.post("expose", **unix).status == 200
    assert table.post("expose", **unix).body == b"proxy already running for unix on /run/x.sock\n"


def test_a_zone_is_in_force_when_the_answer_comes_and_a_wrong_one_changes_nothing() -> None:
    table = Table()
    assert table.get("/services/dns/all") == []
    for name, status in (("a", 200), ("b", 200), ("c", 500), ("a", 200)):
        body = json.dumps({"Name": f"{name}.", "Records": [{"Name": "x", "IP": "10.0.0.1"}]}).encode()
        assert table.answer("POST", "/services/dns/add", body).status == status
    listed = table.get("/services/dns/all")
    assert [zone["Name"] for zone in listed] == ["a.", "b."]
    assert listed[0]["Records"] == [{"Name": "x", "IP": "10.0.0.1"}]
    assert [len(zones) for zones in table.in_force] == [1, 2, 2]
    wrong = table.answer("POST", "/services/dns/add", b'{"Name": "a,b"}')
    assert (wrong.status, wrong.body.count(b"\n")) == (400, 1)


def test_addresses_and_traffic_are_the_supervisors_in_gvproxys_words() -> None:
    table = Table()
    ports = {"52:54:00:00:77:01": 2}
    assert json.loads(table.future(Reply(True, ports), "GET", "/cam").body) == ports
    assert json.loads(table.future(Reply(True, TRAFFIC), "GET", "/stats").body) == {
        "BytesSent": 40,
        "BytesReceived": 20,
        "NICs": {"Rx": {"Packets": 7}, "Tx": {"Packets": 5}},
        "TCP": {"CurrentConnected": 9},
        "Gateway": in_order({"connections": 9, "denied": 2}),
    }
    untold = table.future(Reply(False, "too many"), "GET", "/cam")
    assert (untold.status, untold.body) == (503, b"too many\n")


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("", "ip is mandatory"),
        ("?port=1", "ip is mandatory"),
        ("?ip=x&port=1", "'x' is no IP address"),
        ("?ip=192.168.127.2", "'' is not a port"),
        ("?ip=192.168.127.2&port=%D9%A1", "'\u0661' is not a port"),
        ("?ip=192.168.127.2&port=1_0", "'1_0' is not a port"),
        ("?ip=192.168.127.2&port=%2B1", "'+1' is not a port"),
        ("?ip=192.168.127.2&port=0", "'0' is not a port"),
        ("?ip=192.168.127.2&port=65536", "'65536' is not a port"),
        ("?ip=10.0.0.1&port=1", "no guest"),
    ],
)
def test_a_wrong_tunnel_is_500_as_with_gvproxy(query: str, line: str) -> None:
    answer = Table().answer("GET", f"/tunnel{query}")
    assert answer.status == 500
    assert line in answer.body.decode()


def test_a_tunnel_begins_with_ok_and_bytes_before_that_end_it() -> None:
    table = Table()
    for early, first in ((b"", b"OK"), (b"early", b"")):
        answer = table.request("GET", "/tunnel?ip=192.168.127.2&port=22")
        assert isinstance(answer, Hijack)
        ours, theirs = socket.socketpair()
        with ours:
            if not early:
                ours.sendall(b"hello")
            answer.take(theirs, early)
            assert ours.recv(10) == first
    assert table.carried == [(ip_address("192.168.127.2"), 22, b"hello")]


def test_a_change_is_done_when_the_supervisor_has_kept_it() -> None:
    table = Table()
    zone = b'{"Name": "a.", "Records": []}'
    assert table.post("expose", local="127.0.0.1:1", remote="192.168.127.2:1").status == 200
    assert table.post("unexpose", local="127.0.0.1:1").status == 200
    assert table.answer("POST", "/services/dns/add", zone).status == 200
    assert table.kept == 3
    assert table.changed_by == [CLIENT] * 3
    table.keeps = Reply(False, "the supervisor has not answered for a while")
    late = table.post("expose", local="127.0.0.1:1", remote="192.168.127.2:1")
    assert (late.status, late.body) == (503, b"the supervisor has not answered for a while\n")

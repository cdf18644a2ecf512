"""``supervisor web`` beside a real switch: its answers, without its switch, bad callers, many viewers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.web import captures
from supervisor.web.server import MOST_VIEWERS
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, StreamVM, build_frame, connect, mac
from tests.helpers.guests.fixtures import StartSwitch
from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.web import Web

STREAM = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    with contextlib.ExitStack() as stack:

        def start(switch: Switch, *words: str) -> Web:
            made = Web(switch.runtime_dir, *words)
            stack.callback(made.close)
            return made

        yield start


def send(switch: Switch, number: int) -> StreamVM:
    vm = connect(f"unix://{switch.qemu}")
    vm.send(build_frame(BROADCAST, mac(number), 60))
    assert isinstance(vm, StreamVM)
    return vm


def test_figures_metrics_and_json(switch: StartSwitch, web: Callable[..., Web]) -> None:
    running = switch(qemu=True)
    with contextlib.closing(send(running, 1)), contextlib.closing(send(running, 2)):
        served = web(running)
        wait_for(lambda: served.get("/metrics")[1].count("bulkhead_port_live{") == 2, "two ports", PATIENCE)
        status, text = served.get("/api/status")
        assert (status, {port["transport"] for port in json.loads(text)["ports"]}) == (200, {"qemu"})

        def told() -> dict[str, object]:
            answer: dict[str, object] = json.loads(served.get("/api/explain?a=qemu-1&b=2")[1])
            return answer

        wait_for(lambda: told()["talk"], "both to have been heard")
        assert told()["path"] == "qemu-1 (port 1) - qemu-2 (port 2)"
        assert served.get("/api/explain?a=qemu-1") == (400, "say which two: /api/explain?a=A&b=B\n")
        assert served.get("/")[1].startswith("<!doctype html>")
        assert served.get("/nothing")[0] == 404


def test_another_origin_and_a_wrong_name_are_refused(switch: StartSwitch, web: Callable[..., Web]) -> None:
    served = web(switch(qemu=True))
    assert served.get("/metrics", Host="evil.example")[0] == 403
    assert served.get("/metrics", Host=f"localhost:{served.port}")[0] == 200
    wanted = json.dumps({"ports": [], "filter": ""})
    for origin in ("http://evil.example", "null", f"http://localhost:{served.port + 1}"):
        assert served.request("POST", "/api/capture", wanted, Origin=origin)[0] == 403


def test_another_user_of_the_machine_gets_metrics_alone(switch: StartSwitch, web: Callable[..., Web]) -> None:
    requirements.require(("root",))
    served = web(switch(qemu=True))
    ask = "import sys, http.client as h; c = h.HTTPConnection(sys.argv[1]); c.request('GET', sys.argv[2]);"
    words = [sys.executable, "-c", f"{ask} print(c.getresponse().status)", f"127.0.0.1:{served.port}"]
    for path, status in (("/metrics", "200"), ("/api/status", "403"), ("/events", "403"), ("/", "403")):
        done = subprocess.run(as_user(NOBODY, [*words, path]), capture_output=True, text=True, check=True)
        assert done.stdout.strip() == status, path


def test_a_token_is_asked_for(switch: StartSwitch, web: Callable[..., Web], tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a-long-enough-secret\n")
    served = web(switch(qemu=True), "--listen", "tcp://127.0.0.1:0", "--token-file", str(secret))
    assert served.get("/metrics")[0] == 401
    assert served.get("/metrics?token=a-long-enough-secreT")[0] == 401
    assert served.get("/metrics?token=a-long-enough-secret")[0] == 200
    assert served.get("/metrics", Authorization="Bearer a-long-enough-secret")[0] == 200


def test_behind_a_token_the_page_has_any_name(
    switch: StartSwitch, web: Callable[..., Web], tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    secret.write_text("a-long-enough-secret\n")
    served = web(switch(qemu=True), "--listen", "tcp://0.0.0.0:0", "--token-file", str(secret))
    for name in ("192.0.2.7:9461", "switch.example"):  # an address of the machine, and a proxy's name
        assert served.get("/api/status", Host=name)[0] == 401
        assert served.get("/api/status?token=a-long-enough-secret", Host=name)[0] == 200


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--listen", "tcp://0.0.0.0:0"],
            "other machines can reach 0.0.0.0; give a secret with --token-file",
        ),
        (
            ["--listen", "tcp://127.0.0.1:65536"],
            "'tcp://127.0.0.1:65536' is not an address; write it as tcp://HOST:PORT or unix:///PATH",
        ),
        (
            ["--listen", "unix://tmp/x"],
            "'unix://tmp/x' has a relative path; write unix:///tmp/x (three slashes) or the path alone",
        ),
        (["--token-file", "/bin/sh"], "the token in /bin/sh is not UTF-8 text"),
        (
            ["--token-file", "/nonexistent"],
            "cannot read the token in /nonexistent: No such file or directory",
        ),
    ],
)
def test_a_mistake_is_reported_in_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bulkhead", "web", "--runtime-dir", str(tmp_path), *words],
        capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"Error: {line}\n")


def test_the_page_outlives_the_switch_and_shows_its_absence(
    switch: StartSwitch, web: Callable[..., Web]
) -> None:
    running = switch(qemu=True)
    served = web(running)
    wait_for(lambda: "bulkhead_up 1.0" in served.get("/metrics")[1], "the switch", PATIENCE)
    running.stop()
    wait_for(lambda: "bulkhead_up 0.0" in served.get("/metrics")[1], "its end", PATIENCE)
    assert served.get("/api/stats")[0] == 503
    assert served.get("/api/explain?a=x&b=y")[0] == 503


def test_a_page_that_hangs_or_dies_leaves_the_switch_alone(
    switch: StartSwitch, web: Callable[..., Web]
) -> None:
    running = switch(qemu=True)
    with contextlib.closing(send(running, 1)) as one, contextlib.closing(send(running, 2)) as two:
        made = Web(running.runtime_dir)
        viewer = socket.create_connection(("127.0.0.1", made.port))
        viewer.sendall(STREAM)
        assert viewer.recv(1)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            made.process.send_signal(number)
            one.send(frame := build_frame(mac(2), mac(1), 700 + number))
            two.receive_matching(frame.__eq__)
            assert running.json("status")["ports"]
        made.process.communicate(timeout=PATIENCE)
        viewer.close()


def test_a_viewer_that_stops_reading_holds_up_no_other(switch: StartSwitch, web: Callable[..., Web]) -> None:
    served = web(switch(qemu=True))
    deaf = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(8)]
    for viewer in deaf:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.sendall(STREAM)
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    ) as connection:
        connection.request("GET", "/events")
        response = connection.getresponse()
        events = [response.readline() for _ in range(9)][::3]
    assert events[0] == b"event: now\n"
    assert set(events[1:]) <= {b"event: live\n", b"event: ports\n", b"event: happened\n"}
    for viewer in deaf:
        viewer.close()


def test_a_thousand_viewers_are_bounded_and_told(switch: StartSwitch, web: Callable[..., Web]) -> None:
    running = switch(qemu=True)
    served = web(running)
    with contextlib.ExitStack() as stack:
        viewers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(1000)
        ]
        for viewer in viewers:
            viewer.sendall(STREAM)
            viewer.settimeout(PATIENCE)
        answers = [viewer.recv(12)[9:] for viewer in viewers]
        assert answers.count(b"200") == MOST_VIEWERS
        assert answers.count(b"503") == 1000 - MOST_VIEWERS
        assert running.json("status")["ports"] == []
        refused = viewers[answers.index(b"503")].recv(4096)
        assert b"64 viewers are watching already; close one" in refused
    wait_for(lambda: _streams(served), "room for a viewer", PATIENCE)


def _streams(served: Web) -> bool:
    with contextlib.closing(socket.create_connection(("127.0.0.1", served.port), PATIENCE)) as viewer:
        viewer.sendall(STREAM)
        return viewer.recv(12)[9:] == b"200"


def capture(
    served: Web, ports: list[str], expression: str = ""
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    body = json.dumps({"ports": ports, "filter": expression})
    connection.request("POST", "/api/capture", body, {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def test_a_capture_is_started_stopped_and_whole(
    switch: StartSwitch, web: Callable[..., Web], tmp_path: Path
) -> None:
    requirements.require(("tshark", "libpcap"))
    running = switch(qemu=True)
    with contextlib.closing(send(running, 1)) as one, contextlib.closing(send(running, 2)) as two:
        served = web(running)
        connection, response = capture(served, ["qemu-1"], "greater 800")
        with contextlib.closing(connection):
            assert response.status == 200
            data = b""
            while b"port 1, qemu" not in data:
                data += response.read1()
            for size in (700, 801, 802):
                one.send(frame := build_frame(mac(2), mac(1), size))
                two.receive_matching(frame.__eq__)
            before = len(data)
            while len(data) < before + 801 + 802:
                data += response.read1()
            number = response.getheader("Capture-Id")
            assert served.request("POST", f"/api/capture/{number}/stop") == (200, "stopped\n")
            file = tmp_path / "capture.pcapng"
            file.write_bytes(data + response.read())
        assert served.request("POST", f"/api/capture/{number}/stop")[0] == 404
        done = subprocess.run(
            ["tshark", "-r", file, "-T", "fields", "-e", "frame.len"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["801", "802"]


@pytest.mark.parametrize(
    ("ports", "expression", "line"),
    [
        (["web"], "", "no port 'web' forwards now; supervisor status lists the ports\n"),
        ([], "tcp prt 1", "the filter 'tcp prt 1' does not compile: "),
        (["--help"], "", "no port '--help' forwards now; supervisor status lists the ports\n"),
    ],
)
def test_a_capture_that_cannot_begin_says_why(
    switch: StartSwitch, web: Callable[..., Web], ports: list[str], expression: str, line: str
) -> None:
    requirements.require(("libpcap",))
    connection, response = capture(web(switch(qemu=True)), ports, expression)
    with contextlib.closing(connection):
        said = response.read().decode()
        assert (response.status, said.count("\n")) == (409, 1)
        assert said.startswith(line)


def test_a_request_that_makes_no_sense_is_refused(switch: StartSwitch, web: Callable[..., Web]) -> None:
    served = web(switch(qemu=True))
    bodies = ["", "[]", "{}", '{"ports": 1, "filter": ""}', '{"ports": "qemu-1", "filter": ""}']
    for body in (*bodies, '{"ports": [""], "filter": ""}', '{"ports": [], "filter": null}'):
        assert served.request("POST", "/api/capture", body)[0] == 400, body
    for path in ("/api/explain?a=%20&b=web", "/api/history?port=1&span=day", "/api/history?port=%D9%A2"):
        assert served.get(path)[0] == 400, path


def test_a_viewer_that_goes_ends_its_capture(switch: StartSwitch, web: Callable[..., Web]) -> None:
    running = switch(qemu=True)
    with contextlib.closing(send(running, 1)):
        running.wait_live(1)
        connection, response = capture(web(running), [])
        assert response.status == 200
        while b"port 1, qemu" not in response.read1():
            pass  # from here on nothing is written that could fail
        connection.close()
        response.close()
        wait_for(lambda: "the capture of all ports has ended" in running.log(), "its end", PATIENCE)


def test_a_capture_is_bounded(switch: StartSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser keeps the whole file; a viewer that forgets its capture must not fill the memory."""
    monkeypatch.setattr(captures, "MOST_BYTES", 20_000)
    running = switch(qemu=True)
    with contextlib.closing(send(running, 1)) as one:
        running.wait_live(1)

        over = threading.Event()

        def send_on() -> None:
            while not over.wait(0.01):
                one.send(build_frame(BROADCAST, mac(1), 1514))

        async def view() -> int:
            made = captures.Captures(str(running.runtime_dir))
            _, pieces = await made.start("all", "")
            total = 0
            async for piece in pieces:
                total += len(piece)
            await made.close()
            return total

        thread = threading.Thread(target=send_on)
        thread.start()
        try:
            assert 20_000 <= asyncio.run(asyncio.wait_for(view(), PATIENCE)) < 1_000_000
        finally:
            over.set()
            thread.join()

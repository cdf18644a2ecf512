"""``supervisor web`` beside a real switch: in a real browser, without its switch, with bad callers."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, StreamVM, build_frame, connect, mac
from tests.helpers.guests.fixtures import StartSwitch
from tests.helpers.guests.switch import ROOT, Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

STARTS_S = 30.0
BROWSER = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


class Web:
    """One ``supervisor web``."""

    def __init__(self, runtime_dir: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bulkhead", "web", "--runtime-dir", str(runtime_dir), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()

    @property
    def port(self) -> int:
        found = re.fullmatch(r"ready http://127\.0\.0\.1:(\d+)/\n", self.ready)
        assert found, self.ready
        return int(found[1])

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert (self.process.returncode, errors) == (0, "")


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    with contextlib.ExitStack() as stack:

        def start(switch: Switch, *words: str) -> Web:
            made = Web(switch.runtime_dir, *(words or ("--listen", "tcp://127.0.0.1:0")))
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
        assert served.get("/")[1].startswith("<!doctype html>")
        assert served.get("/nothing")[0] == 404


def test_another_origin_and_a_wrong_name_are_refused(switch: StartSwitch, web: Callable[..., Web]) -> None:
    served = web(switch(qemu=True))
    assert served.get("/metrics", Host="evil.example")[0] == 403
    assert served.get("/metrics", Host=f"localhost:{served.port}")[0] == 200


def test_a_token_is_asked_for(switch: StartSwitch, web: Callable[..., Web], tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a-long-enough-secret\n")
    served = web(switch(qemu=True), "--listen", "tcp://127.0.0.1:0", "--token-file", str(secret))
    assert served.get("/metrics")[0] == 401
    assert served.get("/metrics?token=a-long-enough-secreT")[0] == 401
    assert served.get("/metrics?token=a-long-enough-secret")[0] == 200
    assert served.get("/metrics", Authorization="Bearer a-long-enough-secret")[0] == 200


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--listen", "tcp://0.0.0.0:0"],
            "other machines can reach 0.0.0.0; give a secret with --token-file",
        ),
        (["--listen", "127.0.0.1"], "'127.0.0.1' is no address; write it as tcp://HOST:PORT or unix:///PATH"),
        (["--listen", "unix://tmp/x"], "write unix:///tmp/x (three slashes)"),
        (
            ["--token-file", "/nonexistent"],
            "cannot read the token in /nonexistent: No such file or directory",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bulkhead", "web", "--runtime-dir", str(tmp_path), *words],
        capture_output=True, text=True, timeout=STARTS_S, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"Error: {line}\n")


def test_it_outlives_the_switch_and_says_so(switch: StartSwitch, web: Callable[..., Web]) -> None:
    running = switch(qemu=True)
    served = web(running)
    wait_for(lambda: "bulkhead_up 1.0" in served.get("/metrics")[1], "the switch", PATIENCE)
    running.stop()
    wait_for(lambda: "bulkhead_up 0.0" in served.get("/metrics")[1], "its end", PATIENCE)
    assert served.get("/api/stats")[0] == 503


def test_a_viewer_that_stops_reading_holds_up_no_other(switch: StartSwitch, web: Callable[..., Web]) -> None:
    served = web(switch(qemu=True))
    deaf = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(8)]
    for viewer in deaf:
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    ) as connection:
        connection.request("GET", "/events")
        response = connection.getresponse()
        seen = [response.readline() for _ in range(6)]
    assert [line[:6] for line in seen if line.strip()] == [b"data: "] * 3
    for viewer in deaf:
        viewer.close()


@pytest.mark.guest
@pytest.mark.timeout(180)
def test_the_page_in_a_browser(switch: StartSwitch, web: Callable[..., Web]) -> None:
    requirements.require(("chromium",))
    from selenium import webdriver  # noqa: PLC0415 - where it is not installed there is no browser either
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    running = switch(qemu=True)
    served = web(running)
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in (*BROWSER, "--window-size=1400,900"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    with contextlib.ExitStack() as stack:
        stack.callback(browser.quit)
        vms = [stack.enter_context(contextlib.closing(send(running, number))) for number in (1, 2, 3)]
        browser.get(f"http://127.0.0.1:{served.port}/")

        def text(selector: str) -> list[str]:
            script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
            found: list[str] = browser.execute_script(script, selector)
            return found

        wait_for(
            lambda: len(text("#ports tr")) == 3, lambda: f"three rows, not {text('#ports tr')}", STARTS_S
        )
        wait_for(
            lambda: text("#verdict") == ["All ports forward"],
            lambda: f"good news: {text('#verdict')}",
            STARTS_S,
        )
        assert len(text("#map .node")) == 3
        browser.execute_script("document.querySelector('#ports tr').click()")
        wait_for(lambda: any("Port 1" in each for each in text("#detail-title")), "the detail", STARTS_S)
        vms[2].close()
        wait_for(lambda: len(text("#ports tr")) == 2, "a port less", STARTS_S)
        stack.callback(fill(running, stack).close)
        wait_for(lambda: text("#map .node.stalled") != [], "a stalled one", STARTS_S)
        assert "takes no frames" in text("#verdict")[0]
        running.stop()
        wait_for(lambda: "does not answer" in text("#verdict")[0], "its end", STARTS_S)
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
        assert asked(browser) == {f"127.0.0.1:{served.port}"}


def fill(running: Switch, stack: contextlib.ExitStack) -> StreamVM:
    """Attach one that does not read, and one that sends to it until it is full."""
    deaf = send(running, 8)
    sender = stack.enter_context(contextlib.closing(send(running, 9)))
    for _ in range(4000):
        sender.send(build_frame(mac(8), mac(9), 1514))
    return deaf


def asked(browser: Any) -> set[str]:
    """Return the hosts to which the browser has sent requests."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"
    ]
    return {url.split("/")[2] for url in urls if not url.startswith("data:")}

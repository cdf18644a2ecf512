"""Screens and settings of an operator on a real switch: 80 columns, listeners, all switches, a check."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from supervisor.console.client import Client
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.ports import attach, meet
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.probes import kill_supervisor

StartSwitch = Callable[..., Switch]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(running: Switch, *words: str, columns: int = 80) -> list[str]:
    """Run a command on a terminal of so many columns; return its lines as a person sees them."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        running._command(*words),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "60"},
    )
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert process.wait(PATIENCE) == 0, seen
    return ESCAPES.sub("", seen.decode()).replace("\r", "").splitlines()


def test_eighty_columns_are_enough_for_a_switch_that_has_counted_a_lot(switch: StartSwitch) -> None:
    running = switch()
    vms = [
        attach(running, name, "--limit-broadcast", "1") for name in ("web", "a-rather-long-name-of-a-port")
    ]
    running.wait_live(2)
    for number, vm in enumerate(vms):
        vm.send(*[build_frame(BROADCAST, mac(number), 1514)] * 50)
        vm.send(*[build_frame(mac(7), mac(number), 1514)] * 50)

    def counted() -> bool:
        return all(port["drops"]["storm"] and port["flooded"] for port in running.ports())

    wait_for(counted, "storms to be counted")
    for command in (["status"], ["stats"], ["status", "--all"], ["stats", "--all"]):
        lines = on_terminal(running, *command)
        assert max(map(len, lines)) <= 80, command
        assert not [line for line in lines if "…" in line]
        tables = [line for line in running.command(*command).stdout.splitlines() if line.startswith(" ")]
        assert max(map(len, tables)) <= 80, command
    text = "\n".join(on_terminal(running, "stats"))
    assert "storm" in text
    assert "mac_limit" not in text
    assert "mac_limit" in "\n".join(on_terminal(running, "stats", "--all"))
    assert mac(0).hex(":") in "\n".join(on_terminal(running, "status"))


def test_settings_of_a_listener_are_for_its_next_vms_and_survive_the_supervisor(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    url = f"unix://{running.qemu}"
    first = running.connect("unix")
    running.wait_live(1)
    said = running.command("set", url, "limit-macs=7", "isolated=true").stdout
    assert said == f"set {url} limit-macs=7 isolated=true for VMs that attach from now on\n"
    second = connect(url)
    ports = running.wait_live(2)
    limits = [running.json("show", port["name"])["settings"]["max_macs"] for port in ports]
    assert limits == [1024, 7]
    shown = running.json("show", str(running.qemu))
    assert (shown["port"], shown["url"], shown["settings"]["max_macs"]) == (None, url, 7)
    (event,) = [each for each in events(running) if each["event"] == "set"]
    assert event["settings"] == {"limit-macs": "7", "isolated": "true"}
    assert event["by"]["uid"] == os.getuid()
    kill_supervisor(running)
    running.start(*running.arguments(qemu=True))
    assert running.json("show", url)["settings"]["max_macs"] == 7
    del first, second


@pytest.mark.parametrize("words", [["limit-macs=x"], ["reach=a"], ["offload=none", "pin=zz"]])
def test_a_listener_refuses_settings_that_cannot_be(switch: StartSwitch, words: list[str]) -> None:
    running = switch(qemu=True)
    before = running.json("show", str(running.qemu))
    done = running.command("set", str(running.qemu), *words, check=False)
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()[-1]) > 10
    assert running.json("show", str(running.qemu)) == before


def test_an_address_of_another_port_cannot_be_pinned_to_a_listener(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    attach(running, "web", "--pin", mac(5).hex(":"))
    done = running.command("set", str(running.qemu), f"pin={mac(5).hex(':')}", check=False)
    assert done.returncode == 1
    assert "already pinned" in done.stderr


def events(running: Switch) -> list[dict[str, object]]:
    return [json.loads(line) for line in running.command("events", "--json").stdout.splitlines()]


def test_list_shows_live_and_hung_switches(switch: StartSwitch) -> None:
    running, hung = switch(qemu=True), switch(qemu=True)
    assert hung.process is not None
    found: dict[str, dict[str, Any]] = {}

    def both() -> bool:
        """Whether the one is live, which on a busy machine may take more than the second that it is given."""
        answer = subprocess.run(
            [*running._command("list")[:3], "list", "--json"], capture_output=True, text=True, check=True
        ).stdout
        found.update({each["runtime_dir"]: each for each in json.loads(answer)["switches"]})
        assert found[str(hung.runtime_dir)]["state"] == "silent"
        return found[str(running.runtime_dir)]["state"] == "live"

    os.kill(hung.process.pid, signal.SIGSTOP)
    try:
        wait_for(both, "the other to be live")
    finally:
        os.kill(hung.process.pid, signal.SIGCONT)
    assert found[str(running.runtime_dir)]["ports"] == 0


def check(directory: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    before = sorted(directory.rglob("*"))
    done = Switch(directory).command("run", "--check", *flags, check=False)
    after = [path for path in sorted(directory.rglob("*")) if path.name != "vm"]
    assert after == before
    return done


def test_check_shows_the_actions_and_makes_nothing() -> None:
    with short_directory() as directory:
        done = check(
            directory, "--listen-qemu", f"{directory}/q.sock", "--gateway", "--subnet", "10.88.0.0/24"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            f"would run 'bulkhead' in {directory}/run",
            f"would listen at unix://{directory}/q.sock for qemu VMs",
            "would run a gateway for 10.88.0.0/24",
        ]


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--listen-qemu", "/srv/nodir/x.sock"], 1, "the directory /srv/nodir does not exist"),
        (
            ["--pid-file", "/srv/nodir/pid"],
            1,
            "cannot write pid file /srv/nodir/pid: No such file or directory",
        ),
        (["--listen-qemu", "{}/file"], 1, "exists and is not a socket"),
        (["--listen-qemu", "{}/live.sock"], 1, "another process listens on"),
        (["--listen-qemu", "{}/q.sock", "--listen-qemu", "{}/q.sock"], 1, "is attached twice"),
        (["--listen-qemu", "{}/q.sock", "--listen-vhost", "{}/q.sock"], 1, "is attached twice"),
        (["--tap", "tap0,netns=nowhere"], 1, "make it with `ip netns add`"),
        (["--gateway", "--subnet", "10.0.0.5/24"], 1, "did you mean 10.0.0.0/24"),
        (["--gateway", "--forward", "nonsense"], 1, "gateway: "),
        (["--listen-qemu", "tcp://192.0.2.1:80"], 1, "cannot listen on tcp://192.0.2.1:80"),
        (["--config", "{}/file"], 1, "is no TOML"),
        (["--name", ""], 1, "'' cannot name a switch"),
        (["--name", "a\nb"], 1, "cannot name a switch"),
        (["--gateway", "--pcap", ""], 1, "cannot write to no file: No such file or directory"),
        (["--gateway", "--pcap", "{}"], 1, "Is a directory"),
        (["--tap", "lo"], 1, "an interface of that name exists and is no TAP device"),
        (["--listen-qemu", "tcp://no.such.name:80"], 1, "is no IP address"),
        (["--gateway", "--forward", "tcp:127.0.0.1:0:10.0.0.1:80"], 1, "is outside of the gateway's"),
        (["--gateway", "--forward", "unix:/srv/nodir/x:192.168.127.2:80"], 1, "/srv/nodir does not exist"),
        (["--gateway", "--services", "unix:///srv/nodir/x"], 1, "/srv/nodir does not exist"),
        (["--gateway", "--forward", "tcp:192.0.2.1:80:192.168.127.2:80"], 1, "does not have that address"),
        (["--gateway", *["--forward", "tcp:127.0.0.1:81:192.168.127.2:80"] * 2], 1, "remove it first"),
        (["--listen-qemu", "unix://x.sock"], 2, "three slashes"),
    ],
)
def test_check_says_the_fault(flags: list[str], status: int, said: str) -> None:
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as live:
        (directory / "file").write_text("=")
        live.bind(str(directory / "live.sock"))
        live.listen()
        done = check(directory, *(flag.format(directory) for flag in flags))
        assert done.returncode == status, done
        assert said in done.stderr
        assert done.stdout == ""


def test_check_says_that_a_supervisor_runs_there(switch: StartSwitch) -> None:
    running = switch()
    done = running.command("run", "--check", check=False)
    assert done.returncode == 1
    assert "a supervisor runs in" in done.stderr


def test_stats_since_a_while_ago_and_the_history_outlive_the_supervisor(switch: StartSwitch) -> None:
    running = switch(qemu=True)
    first, second = running.connect("unix"), running.connect("unix")
    running.wait_live(2)
    meet({1: first, 2: second})

    def history() -> list[int | None]:
        with Client(str(running.runtime_dir)) as client:
            answer = cast(dict[str, Any], client.ask("history", span="minute"))
        return next(each["rx_frames"] for each in answer["ports"] if each["port"] == 1)

    wait_for(lambda: any(value is not None for value in history()), "a second to pass")
    first.send(*[build_frame(mac(2), mac(1), 200)] * 70)
    wait_for(lambda: sum(value or 0 for value in history()) >= 70, "what was sent to be in the history")
    wait_for((running.runtime_dir / "history.ring").exists, "the file")
    total = next(port for port in running.ports() if port["port"] == 1)["rx"]["frames"]
    kill_supervisor(running)
    running.start(*running.arguments(qemu=True))
    running.wait_live(2)
    wait_for(lambda: sum(value or 0 for value in history()) >= 70, "the history of before")
    since = running.json("stats", "--since", "1h")
    assert since["since_s"] == 3600
    row = next(port for port in since["ports"] if port["port"] == 1)
    assert 70 <= row["rx"]["frames"] <= total
    recent = next(port for port in running.json("stats", "--since", "0.001s")["ports"] if port["port"] == 1)
    assert recent["rx"]["frames"] == 0
    assert "counted in the last 1:00:00" in running.command("stats", "--since", "1h").stdout


@pytest.mark.parametrize("span", ["2h", "x", "-1", "0", "10 m", "1e9", "90d"])
def test_a_span_that_is_none_is_refused(switch: StartSwitch, span: str) -> None:
    done = switch().command("stats", f"--since={span}", check=False)
    assert done.returncode in (1, 2)
    assert "since" in done.stderr or "write it like" in done.stderr

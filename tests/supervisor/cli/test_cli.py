"""The command line: help everywhere, 0/1/2 as exit codes, and one line for each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forwarder import _core, counted
from forwarder.names import PROTOCOL_VERSION
from forwarder.version import VERSION
from supervisor.cli import main as cli
from supervisor.ports.settings import SETTINGS
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.switch import ROOT


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def supervisor(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a process that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "bulkhead", *map(str, arguments)],
        cwd=cwd or ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def invoke(*arguments: object) -> Result:
    """Run the command in this process, for mistakes that are found before anything is done."""
    return CliRunner().invoke(cli.main, list(map(str, arguments)), prog_name="supervisor")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_and_takes_a_directory(command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: supervisor {command} ")
    assert "--runtime-dir" in done.output


def test_options_of_a_gateway_need_a_gateway() -> None:
    done = invoke("run", "--subnet", "10.77.0.0/24")
    assert done.exit_code == 2
    assert "--subnet needs --gateway" in done.output


def test_help_is_quick_because_it_loads_nothing_heavy() -> None:
    heavy = {"zmq", "psutil", "rich", "msgpack"}
    code = (
        "import sys\nfrom supervisor.cli.main import main\n"
        "try:\n    main(['--help'], prog_name='supervisor')\n"
        f"finally:\n    print(*sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "  web " in done.stdout
    assert done.stderr == "\n"


def test_the_list_of_commands_cuts_no_sentence() -> None:
    listed = invoke("--help").output.partition("Commands:\n")[2].splitlines()
    assert len(listed) == len(cli.COMMANDS)
    assert all(each.endswith(".") and not each.endswith("...") for each in listed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--listen-qemu", "unixgram:///x"],
        ["run", "--listen-bess", "unix:///x"],
        ["run", "--listen-vfkit", "unixgram://x"],
        ["run", "--listen", "tcp://127.0.0.1:1"],
        ["run", "--listen", "unix:///" + 110 * "x"],
        ["run", "--listen-qemu", "tcp://127.0.0.1:99999"],
        ["run", "--listen-qemu", "unix:///" + 110 * "x"],
        ["run", "--tap", "a-name-that-is-too-long"],
        ["run", "--tap", "tap0,mtu=9000"],
        ["run", "--log-level", "loud"],
        ["run", "--log-format", "xml"],
        ["run", "--no-such-flag"],
        ["stats", "--watch", "0"],
        ["stats", "--watch", "nan"],
        ["capture", "all", "-w", "x", "--seconds", "nan"],
        ["stop", "--timeout", "inf"],
        ["attach"],
        ["attach", "--tap", "tap0", "--limit-broadcast", "10q"],
        ["attach", "--tap", "tap0", "--limit-bandwidth", "100"],
        ["attach", "--tap", "tap0", "--limit-macs", "-1"],
        ["attach", "--tap", "tap0", "--pin", "x"],
        ["attach", "--tap", "tap0", "--reach", "a b"],
        ["show"],
        ["set", "web"],
        ["set", "web", "isolated"],
        ["set", "web", "isolated=perhaps"],
        ["set", "web", "limit-brodcast=1"],
        ["set", "web", "pin=02:00:00:00:00:01", "pin=02:00:00:00:00:02"],
        ["detach"],
        ["stop", "--timeout", "-1"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_mistake(arguments: list[str], place: Path) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    lines = done.output.splitlines()
    assert lines[-1].startswith("Error: ")
    assert sum(line.startswith("Error") for line in lines) == 1


@pytest.mark.parametrize(
    "command", ["status", "stats", "top", "macs", "detach x", "show x", "set x pin=", "stop"]
)
def test_without_a_supervisor_every_command_says_so(command: str, place: Path) -> None:
    name, *arguments = command.split()
    done = invoke(name, "--runtime-dir", place, *arguments)
    assert done.exit_code == 1
    assert done.output.startswith(
        f"Error: no supervisor runs in {place}; start one, or give its --runtime-dir"
    )
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "stop", "capture -w - x"])
def test_a_runtime_directory_with_too_long_a_path_is_said_to_be_that(command: str, place: Path) -> None:
    name, *arguments = command.split()
    done = invoke(name, "--runtime-dir", place / ("x" * 120), *arguments)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {place}/xxx")
    assert "bytes for the sockets in it; choose a shorter --runtime-dir" in done.output


def failed_run(place: Path, *arguments: object) -> str:
    """Start a switch that cannot start; return its one line, having left nothing."""
    before = sorted(place.rglob("*"))
    done = supervisor("run", "--runtime-dir", place / "run", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert sorted(place.rglob("*")) == before, "something was left behind"
    return done.stderr


def test_a_socket_that_cannot_be_listened_on(place: Path) -> None:
    assert f"the directory {place}/no does not exist; create it" in failed_run(
        place, "--listen-qemu", f"unix://{place}/no/q.sock"
    )
    (place / "file").write_text("x")
    for flag in ("--listen-qemu", "--listen"):
        assert "is not a socket" in failed_run(place, flag, f"unix://{place}/file")


def test_opened_listeners_are_closed_when_the_next_one_fails(place: Path) -> None:
    good = ["--listen-qemu", f"unix://{place}/q", "--listen-vfkit", f"unixgram://{place}/v"]
    failed_run(place, *good, "--listen-bess", f"unixpacket://{place}/no/b")


def test_the_same_address_twice(place: Path) -> None:
    url = f"unix://{place}/q"
    assert f"{url} is attached already" in failed_run(place, "--listen-qemu", url, "--listen-qemu", url)


def test_a_pid_file_that_cannot_be_written(place: Path) -> None:
    assert "cannot write pid file" in failed_run(place, "--pid-file", place / "no" / "pid")


def test_a_configuration_that_is_wrong(place: Path) -> None:
    (place / "c.toml").write_text('listen-qemu = ["unix:///x"]\nlog-levle = "info"\n')
    assert f"{place}/c.toml, line 2: log-levle: unknown key" in failed_run(
        place, "--config", place / "c.toml"
    )


def test_a_device_that_cannot_be_made(place: Path) -> None:
    assert "network namespace /run/netns/absent" in failed_run(place, "--tap", "bh0,netns=absent")


def test_a_runtime_directory_too_long(place: Path) -> None:
    done = supervisor("run", "--runtime-dir", place / ("x" * 100))
    assert (done.returncode, done.stdout) == (1, "")
    assert "too long by" in done.stderr


def test_the_version_names_protocol_and_layout() -> None:
    done = supervisor("--version")
    assert done.stdout == f"bulkhead {VERSION} (protocol {PROTOCOL_VERSION}, layout {_core.LAYOUT})\n"


def test_json_lines_in_the_log(place: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bulkhead",
            "run",
            "--runtime-dir",
            place / "run",
            "--log-format",
            "json",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("ready bulkhead in ")
    lines = [json.loads(process.stderr.readline())]
    while not lines[-1]["message"].startswith("workers are confined"):  # the first spare says it, at any time
        lines.append(json.loads(process.stderr.readline()))
    process.terminate()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    lines += [json.loads(line) for line in log.splitlines()]
    assert lines[-1]["message"] == "stopping 0 ports"
    assert lines[-1]["level"] == "info"


def test_help_names_every_setting_its_form_and_its_default() -> None:
    page = " ".join(invoke("set", "--help").output.split())
    for key, setting in SETTINGS.items():
        assert f" {key}={setting.form} {setting.help}" in page
    assert "limit-broadcast=FRAMES/S" in page
    assert "[default: 2000/s]" in page
    attach = invoke("attach", "--help").output
    for key in SETTINGS:
        assert f"--{'no-' if key == 'flood-unknown' else ''}{key} " in attach


@pytest.mark.parametrize("words", [["set"], ["forward", "add"]])
def test_help_fits_a_terminal(words: list[str]) -> None:
    page = CliRunner().invoke(cli.main, [*words, "--help"], terminal_width=80).output
    assert max(map(len, page.splitlines())) <= 80


def test_help_explains_every_counter() -> None:
    for words in (counted.DROPS, counted.REFUSED, counted.RELAYED):
        for word, meaning in words.items():
            assert meaning in invoke("help", word).output

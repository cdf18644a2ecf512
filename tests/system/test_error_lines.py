"""The answers to mistakes of the operator: one line with the mistake and the right form."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import connect, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.ports import attach
from tests.helpers.guests.switch import ROOT, Switch

StartSwitch = Callable[..., Switch]
OWN = mac(1).hex(":")
BULKHEAD = (sys.executable, str(ROOT / "bulkhead.py"))


def refused(switch: Switch, *words: str, status: int) -> str:
    """Return the last line of a command that fails."""
    done = switch.command(words[0], *words[1:], check=False)
    assert done.returncode == status, done
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (
            ["--listen-qemu", "unix:///srv/nodir/x.sock"],
            1,
            "cannot listen on /srv/nodir/x.sock: the directory /srv/nodir does not exist; create it",
        ),
        (["--listen-qemu", "unix://tmp/x.sock"], 2, "write unix:///tmp/x.sock (three slashes)"),
        (["--listen-vfkit", "unixgram://x.sock"], 2, "write unixgram:///x.sock (three slashes)"),
        (["--mtu", "1500", "--ssh-port", "1"], 2, "--mtu and --ssh-port need --gateway"),
        (["--no-outbound"], 2, "--no-outbound needs --gateway"),
        (
            ["--mtu", "1500", "--deny", "::/0", "--no-outbound"],
            2,
            "--mtu, --no-outbound and --deny need --gateway",
        ),
        (["--tap", "a b"], 2, "cannot name an interface"),
        (["--listen-qemu", "tcp://127.0.0.1:" + 5000 * "9"], 2, "is no address; write it as tcp://HOST:PORT"),
        (["--listen-qemu", "tcp://203.0.113.7:5"], 1, "this machine does not have that address; choose one"),
        (["--listen-qemu", "/tmp/bh-2.sock", "--listen-bess", "/tmp/bh-2.sock"], 1, "is attached already"),
    ],
)
def test_run(flags: list[str], status: int, said: str) -> None:
    with short_directory() as directory:
        assert said in refused(Switch(directory), "run", *flags, status=status)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (["--pid", "--fork", "--kill-child"], "/proc is that of another PID namespace"),
        (["--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"], "/proc is missing"),
    ],
    ids=["another", "missing"],
)
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_container_whose_proc_does_not_show_it(wrap: list[str], said: str, check: list[str]) -> None:
    requirements.require(("root",))
    with short_directory() as directory:
        contained = Switch(directory, wrap=lambda words: ["unshare", *wrap, *words])
        assert said in refused(contained, "run", *check, status=1)
        assert not contained.runtime_dir.exists()


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_file_system_that_is_read_only_is_named(check: list[str]) -> None:
    requirements.require(("root",))
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro,mode=700 none /mnt; exec "$@"', "sh"]
    with short_directory() as directory:
        switch = Switch(directory, wrap=lambda words: [*mounted, *words])
        said = refused(switch, "run", "--listen-qemu", "/mnt/q.sock", *check, status=1)
        assert "/mnt is on a read-only file system; choose another directory" in said
        said = refused(switch, "run", "--runtime-dir", "/mnt", *check, status=1)
        assert "cannot use runtime directory /mnt: read-only file system" in said


@pytest.mark.parametrize("words", [("status",), ("events",), ("stats", "--json"), ("help",), ("list",)])
def test_an_output_that_is_full_or_closed_is_one_line(switch: StartSwitch, words: tuple[str, ...]) -> None:
    running = switch()
    argv = running._command(*words) if words[0] not in ("help", "list") else [*BULKHEAD, *words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: cannot write to standard output: No space left on device\n"
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *argv], capture_output=True, text=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_terminal_without_lines_for_tables_gets_tables(switch: StartSwitch) -> None:
    argv = switch(qemu=True)._command("status")
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(argv, capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"qemu VMs attach at" in done.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--subnet", "10.0.0.5/24"], "subnet: '10.0.0.5/24' has host bits set; did you mean 10.0.0.0/24?"),
        (["--subnet", "10.0.0.0/31"], "subnet: 10.0.0.0/31 has to be a /8 to /28"),
        (["--mtu", "9"], "mtu: 9 is not a number from 1280 to 65520"),
        (
            ["--services", "unix://x"],
            "services: 'unix://x' has a relative path; write unix:///x (three slashes)",
        ),
        (["--forward", "tcp:80"], "forward 'tcp:80' is not of the form"),
        (["--static-lease", "x"], "static-lease: 'x' is no static lease"),
        (["--static-lease", "01:00:00:00:00:01=192.168.127.9"], "static-lease: 01:00:00:00:00:01 is a group"),
        (["--services", ""], "services: '' is no address"),
        (["--forward", "tcp:127.0.0.1:99999:192.168.127.2:80"], "'99999' is not a port from 0 to 65535"),
        (["--forward", "tcp:127.0.0.1:0:web:80"], "'web' is not an IP address"),
    ],
)
def test_a_value_of_the_gateway_is_wrong_usage(flags: list[str], said: str) -> None:
    with short_directory() as directory:
        assert said in refused(Switch(directory), "run", "--gateway", *flags, status=2)


def test_a_wrong_forward_of_a_running_gateway_is_wrong_usage(switch: StartSwitch) -> None:
    running = switch("--gateway")
    said = refused(running, "forward", "add", "tcp:80", status=2)
    assert "Error: forward 'tcp:80' is not of the form" in said


def test_a_path_stands_for_the_url_of_a_socket(switch: StartSwitch, tmp_path: Path) -> None:
    running = switch("--listen-qemu", str(tmp_path / "q"), "--listen-vfkit", str(tmp_path / "v"))
    assert f"unix://{tmp_path}/q unixgram://{tmp_path}/v" in running.ready_line
    assert running.command("detach", str(tmp_path / "q")).stdout == f"detached unix://{tmp_path}/q\n"
    assert not (tmp_path / "q").exists()
    running.command("attach", "--listen-bess", str(tmp_path / "b"))
    vm = connect(f"unixpacket://{tmp_path}/b")
    running.wait_live(1)
    vm.close()


def test_pins_names_and_reach(switch: StartSwitch) -> None:
    running = switch()
    _vms = [attach(running, "a"), attach(running, "b"), attach(running, "c", "--pin", mac(3).hex(":"))]
    running.wait_live(3)
    running.command("set", "a", f"pin={OWN}")
    line = refused(running, "set", "b", f"pin={OWN}", status=1)
    taken, _, remedy = line.partition("; unpin it there first: supervisor ")
    assert taken.endswith(f"{OWN} is already pinned to port 1 (a)")
    running.command(*remedy.split())
    running.command("set", "b", f"pin={OWN}")
    line = refused(running, "set", "b", f"pin={mac(3).hex(':')}", status=1)
    assert f"is already pinned to unixpacket://{running.directory}/c.sock; detach that first" in line
    line = refused(running, "set", "b", "reach=a", status=1)
    assert "reach: it has no effect unless isolated=true" in line
    done = running.command("set", "b", "isolated=true", "reach=a,x")
    assert done.stderr == "reach: no port is named x yet\n"
    path = running.directory / "second.sock"
    done = running.command("attach", "--listen-bess", str(path), "--name", "b")
    assert done.stderr == "a port is named b already; the next one is b-2\n"


def test_a_number_is_a_port_before_it_is_a_name(switch: StartSwitch) -> None:
    running = switch()
    _vms = [attach(running, "2"), attach(running, "b")]
    running.wait_live(2)
    assert running.command("set", "2", "limit-macs=4").stdout == "set b limit-macs=4\n"
    assert running.json("show", "1")["name"] == "2"
    assert running.command("detach", "2").stdout == "detached b\n"
    running.wait_live(1)
    assert running.command("detach", "2").stdout == "detached 2\n", "there is no port 2 any more"


def test_a_listener_without_a_vm_is_known_by_its_name(switch: StartSwitch, tmp_path: Path) -> None:
    running = switch()
    path = tmp_path / "web.sock"
    running.command("attach", "--listen-vfkit", str(path), "--name", "web", "--limit-macs", "3")
    said = running.command("set", "web", "limit-macs=4").stdout
    assert said == f"set unixgram://{path} limit-macs=4 for VMs that attach from now on\n"
    for target in ("web", str(path), f"unixgram://{path}"):
        assert running.json("show", target)["settings"]["max_macs"] == 4
    assert "no port 'wob'" in refused(running, "set", "wob", "limit-macs=4", status=1)
    assert "nothing is attached as /no/such" in refused(running, "detach", "/no/such", status=1)


@pytest.mark.parametrize("failing", [["--pcap", "/"], ["--pid-file", "/"], ["--listen-qemu", "/no/such"]])
def test_a_start_that_fails_after_the_gateway_serves_leaves_nothing(failing: list[str]) -> None:
    requirements.require(requirements.GATEWAY)
    with short_directory() as directory:
        failed = Switch(directory)
        try:
            refused(failed, "run", "--gateway", "--listen-bess", str(failed.bess), *failing, status=1)
            failed.assert_nothing_left(5.0)
            assert not failed.runtime_dir.exists()
        finally:
            failed.kill()


def test_a_tap_is_attached_once(switch: StartSwitch) -> None:
    if os.geteuid() != 0:
        pytest.skip("a TAP needs root")
    with short_directory() as directory:
        done = Switch(directory).command("run", "--tap", "bhtwice0", "--tap", "bhtwice0", check=False)
        assert done.returncode == 1
        assert "tap://bhtwice0 is attached already" in done.stderr.splitlines()[-1]


def test_without_a_switch_in_the_directory_the_running_ones_are_named(switch: StartSwitch) -> None:
    running = switch()
    with short_directory() as directory:
        line = refused(Switch(directory), "status", status=1)
        assert str(running.runtime_dir) in line.partition("(running: ")[2]


def test_a_missing_interpreter_is_named() -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "run"
    done = subprocess.run(
        [script], env=os.environ | {"PYTHON": "python3.9-absent"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no such program: python3.9-absent" in done.stderr


def test_an_interrupt_before_the_command_line_is_there_ends_it_without_a_word() -> None:
    early = "bulkhead.find_spec = lambda name: os.kill(os.getpid(), signal.SIGINT)"
    code = f"import os, signal, bulkhead; {early}; bulkhead.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")

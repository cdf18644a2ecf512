"""``ssh`` of the host to a guest through a forward, and a session without a keystroke."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.relay.tcp import DIAL_S
from tests.helpers.gateway.place import Place
from tests.helpers.guests import requirements
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest

PORT = 2222
SILENCE_S = DIAL_S + 2
"""Longer than any time after which the gateway gives up something that is not there yet."""

SERVER = """mount -t tmpfs none /run; mkdir /run/sshd; chmod 755 /run/sshd
exec /usr/sbin/sshd -D -e -f none -p 22 -h {key} -o AuthorizedKeysFile={key}.pub -o StrictModes=no \
    -o UsePAM=no -o PermitRootLogin=prohibit-password -o TCPKeepAlive=no -o PidFile=none
"""
"""Its directory for privilege separation is in a file system of its own."""


@contextlib.contextmanager
def session(here: Place, key: Path, command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command on the guest, as root, without any keepalive of ssh's own."""
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR")
    options += ("TCPKeepAlive=no", "ServerAliveInterval=0", "ConnectTimeout=10")
    words = ["ssh", "-F", "none", "-i", str(key), "-p", str(PORT), *(f"-o{each}" for each in options)]
    process = subprocess.Popen(
        ["ip", "netns", "exec", here.host.netns, *words, "root@127.0.0.1", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_a_session_through_a_forward_outlives_silence(place: Callable[..., Place], tmp_path: Path) -> None:
    requirements.require(("ssh",))
    here = place("--ssh-port", str(PORT))
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=20)
    script = tmp_path / "sshd.sh"
    script.write_text(SERVER.format(key=key))
    here.guest.start(f"sh {script}")

    def greeted() -> bool:
        with session(here, key, "echo welcome") as first:
            return first.communicate(timeout=PATIENCE)[0] == "welcome\n"

    wait_for(greeted, "the guest's sshd")
    with session(here, key, "echo ready; read line; echo alive, $line") as silent:
        assert silent.stdout is not None
        assert silent.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):  # so it is still there
            silent.wait(SILENCE_S)
        assert silent.communicate("after all\n", timeout=PATIENCE)[0] == "alive, after all\n"
        assert silent.returncode == 0

"""What the gateway needs and does not find: one line each, with the remedy, and nothing half made."""

from __future__ import annotations

import socket
from functools import partial

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.switch import Switch

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True)
def _needs() -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))


def refused(switch: Switch, *flags: str, status: int = 1) -> str:
    """Return the one line with which ``run --gateway`` ends; status 2: what was written cannot be."""
    done = switch.command("run", "--gateway", *flags, check=False)
    assert done.returncode == status
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("Error: ") for line in lines) == 1
    switch.assert_nothing_left()
    return lines[-1]


@pytest.mark.parametrize(("program", "package"), [("nft", "nftables"), ("ip", "iproute2")])
def test_a_missing_program_is_named_with_its_package(program: str, package: str) -> None:
    def without(command: list[str]) -> list[str]:
        """Hide the program in a mount namespace of the command's own, by one that cannot be run."""
        places = " ".join(f"{folder}/{program}" for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin"))
        hide = f"for at in {places}; do [ -e $at ] && mount --bind /dev/null $at; done"
        return ["unshare", "--mount", "sh", "-c", f'{hide}; exec "$@"', "sh", *command]

    with short_directory() as directory:
        assert f"{program} is missing; install {package}" in refused(Switch(directory, wrap=without))


def test_forbidden_user_namespaces_are_named_with_the_remedy() -> None:
    with short_directory() as directory:
        directory.chmod(0o777)
        line = refused(Switch(directory, wrap=_without_namespaces))
        assert "no user namespace can be made here" in line
        assert "or run as root" in line


def _without_namespaces(command: list[str]) -> list[str]:
    """Run ``command`` as an ordinary user in a user namespace in which there can be no other."""
    script = 'echo 1 >/proc/sys/user/max_user_namespaces; exec "$@"'
    mapped = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    return as_user(NOBODY, [*mapped, "unshare", "--user", "--map-user=1000", *command])


def test_a_subnet_of_the_host_is_refused() -> None:
    with short_directory() as directory:
        host = Namespace("host")
        try:
            host.run("ip link add one type veth peer name two")
            host.run("ip addr add 10.77.0.5/16 dev one; ip link set one up")
            switch = Switch(directory, wrap=partial(_within, host.netns))
            line = refused(switch, "--subnet", "10.77.3.0/24")
            assert "10.77.3.0/24 overlaps 10.77.0.0/16 of the host's one; choose another --subnet" in line
        finally:
            host.close()


def _within(netns: str, command: list[str]) -> list[str]:
    return ["ip", "netns", "exec", netns, *command]


def test_a_port_in_use_and_a_forward_that_cannot_be() -> None:
    with short_directory() as directory, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(Switch(directory), "--forward", f"tcp:127.0.0.1:{port}:192.168.127.2:80")
        assert f"127.0.0.1:{port}" in line
        assert "another program listens there" in line
    with short_directory() as directory:
        assert "10.0.0.9 is outside" in refused(Switch(directory), "--forward", "tcp:127.0.0.1:0:10.0.0.9:80")


def test_a_services_socket_that_cannot_be() -> None:
    with short_directory() as directory:
        line = refused(Switch(directory), "--services", f"unix://{directory}/absent/socket")
        assert line.startswith("Error: services: ")
        assert "cannot listen on" in line
        assert "absent does not exist; create it" in line
        assert "relative" not in line
    with short_directory() as directory:
        line = refused(Switch(directory), "--services", "relative", status=2)
        assert "services: 'relative' has a relative path" in line

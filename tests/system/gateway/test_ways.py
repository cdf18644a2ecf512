"""The ways through the gateway: to the host, to the outside and back in, by real programs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable

import pytest

from tests.helpers.gateway.place import FOUND, GATEWAY, GUEST, HOST, OUTSIDE, RESOLVER, Place, resolver
from tests.helpers.gateway.processes import process
from tests.helpers.guests.machine import CommandError
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest
MANY = 600
"""More connections than the channel to the namespace holds requests for sockets."""


def test_the_host_and_the_outside_are_reached_and_a_refusal_is_a_refusal(place: Callable[..., Place]) -> None:
    here = place()
    at_host = here.serve(here.host, "127.0.0.1", "loopback")
    outside = here.serve(here.internet, OUTSIDE, "outside")
    assert here.get(here.guest, f"http://{HOST}:{at_host}/") == "loopback"
    assert here.get(here.guest, f"http://{OUTSIDE}:{outside}/") == "outside"
    for refused in (f"http://{HOST}:9/", f"http://{OUTSIDE}:9/"):
        with pytest.raises(CommandError, match=r"Failed to connect|Could not connect"):
            here.get(here.guest, refused)
    here.guest.ping(OUTSIDE)
    here.guest.ping(HOST)


def test_the_host_is_reached_by_ipv6(place: Callable[..., Place]) -> None:
    here = place()
    at_host = here.serve(here.host, "::1", "six")
    line = wait_for(lambda: _global(here.guest), "an address by router advertisement")
    prefix = ":".join(line.split(":")[:3])
    assert here.get(here.guest, f"http://[{prefix}::254]:{at_host}/") == "six"


def test_a_forward_is_added_used_and_removed_while_running(place: Callable[..., Place]) -> None:
    here = place("--forward", f"tcp:127.0.0.1:0:{GUEST}:81")
    port = here.serve(here.guest, GUEST, "guest")
    first = here.switch.command("forward", "list").stdout
    assert first.startswith("tcp:127.0.0.1:")
    assert first.endswith(f":{GUEST}:81\n")
    added = here.switch.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:{port}").stdout.split()[1]
    url = f"http://127.0.0.1:{added.split(':')[2]}/"
    assert here.get(here.host, url) == "guest"
    assert here.switch.json("forward", "list") == {"forwards": [first.strip(), added]}
    here.switch.command("forward", "remove", added)
    with pytest.raises(CommandError, match=r"Failed to connect|Could not connect"):
        here.get(here.host, url)
    path = here.switch.directory / "to-guest"
    here.switch.command("forward", "add", f"unix:{path}:{GUEST}:{port}")
    assert here.host.run(f"curl --silent --max-time {PATIENCE} --unix-socket {path} http://guest/") == "guest"
    for wrong, line in (
        (f"unix:{path}:{GUEST}:{port}", "already"),
        ("tcp:127.0.0.1:0:10.9.9.9:80", "outside"),
        (first.strip(), "already"),
    ):
        done = here.switch.command("forward", "add", wrong, check=False)
        assert done.returncode == 1
        assert line in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_forwards_outlive_the_gateway(place: Callable[..., Place]) -> None:
    here = place()
    port = here.serve(here.guest, GUEST, "guest")
    added = here.switch.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:{port}").stdout.split()[1]
    pid = process(here.switch, "gateway")
    os.kill(pid, 9)

    def listed() -> bool:
        done = here.switch.command("forward", "list", check=False)
        return done.stdout.split() == [added]

    wait_for(lambda: pid not in here.switch.processes() and listed(), "the next gateway with its forward")
    here.switch.wait_live(2)
    url = f"http://127.0.0.1:{added.split(':')[2]}/"
    assert here.get(here.host, url) == "guest"


def test_the_ssh_port_leads_to_port_22_and_stays_removed(place: Callable[..., Place]) -> None:
    here = place("--ssh-port", "2222")
    ssh = f"tcp:127.0.0.1:2222:{GUEST}:22"
    assert here.switch.json("forward", "list") == {"forwards": [ssh]}
    here.guest.start("busybox nc -ll -p 22 -e echo SSH-2.0-guest")
    connect = "busybox nc 127.0.0.1 2222 </dev/null 2>/dev/null || true"
    wait_for(lambda: here.host.run(connect) == "SSH-2.0-guest\n", "the guest's banner")
    here.switch.command("forward", "remove", ssh)
    pid = process(here.switch, "gateway")
    os.kill(pid, 9)

    def listed() -> str:
        return here.switch.command("forward", "list", "--json", check=False).stdout

    wait_for(lambda: pid not in here.switch.processes() and listed(), "the next gateway")
    assert listed() == '{"forwards": []}\n'


def test_names_of_the_outside_come_from_the_resolver_that_is_named(place: Callable[..., Place]) -> None:
    here = place("--resolver", RESOLVER)
    with resolver(here.internet):
        answer = here.guest.run(f"busybox nslookup -type=a outside.example {GATEWAY}")
        assert FOUND in answer


@pytest.mark.parametrize(
    ("flags", "host", "outside"),
    [
        (("--no-outbound",), True, False),
        (("--no-host-access",), False, True),
        (("--deny", "198.51.100.0/24"), True, False),
    ],
)
def test_guests_do_not_reach_forbidden_addresses(
    place: Callable[..., Place], flags: tuple[str, ...], host: bool, outside: bool
) -> None:
    here = place(*flags)
    ways = (
        (f"http://{HOST}:{here.serve(here.host, '127.0.0.1', 'loopback')}/", host),
        (f"http://{OUTSIDE}:{here.serve(here.internet, OUTSIDE, 'outside')}/", outside),
    )
    for url, allowed in ways:
        if allowed:
            here.get(here.guest, url)
        else:
            with pytest.raises(CommandError):
                here.get(here.guest, url)


def test_loopback_is_not_reached_by_its_own_address(place: Callable[..., Place]) -> None:
    here = place()
    port = here.serve(here.host, "127.0.0.1", "loopback")
    here.guest.run(f"ip route add 0.0.0.0/8 via {GATEWAY}")
    with pytest.raises(CommandError):
        here.guest.run(f"curl --silent --max-time 2 --interface eth0 http://0.0.0.1:{port}/")


def _global(room: Namespace) -> str:
    for line in room.run("ip -6 addr show dev eth0 scope global").splitlines():
        words = line.split()
        if words[:1] == ["inet6"] and "tentative" not in words:
            return words[1].partition("/")[0]
    return ""


def test_connections_that_came_while_the_namespace_was_busy_are_served(place: Callable[..., Place]) -> None:
    here = place("--forward", f"tcp:127.0.0.1:2000:{GUEST}:7")
    relay, inside = process(here.switch, "gateway"), process(here.switch, "gateway.inside")
    with contextlib.ExitStack() as stack:
        guest = stack.enter_context(
            here.guest.inside(lambda: socket.create_server((GUEST, 7), backlog=MANY + 1))
        )
        guest.settimeout(PATIENCE)
        os.kill(inside, signal.SIGSTOP)
        try:
            clients = here.host.inside(
                lambda: [socket.create_connection(("127.0.0.1", 2000)) for _ in range(MANY)]
            )
            for client in clients:
                stack.enter_context(client)
            wait_for(lambda: len(os.listdir(f"/proc/{relay}/fd")) > MANY, "the relay to have them all")
        finally:
            os.kill(inside, signal.SIGCONT)
        for _ in range(MANY):
            stack.enter_context(guest.accept()[0])

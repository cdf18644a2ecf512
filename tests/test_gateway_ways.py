"""The ways through the gateway: to the host, to the outside and back in, by real programs.

The switch runs in a namespace of the test's own, the "host", which has a cable to another one, the
"Internet"; so nothing here can reach anything else, and the host's routes are known.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest

from tests.guests import requirements
from tests.guests.fixtures import short_directory
from tests.guests.machine import CommandError
from tests.guests.netns import Namespace
from tests.guests.ordinary import NOBODY, as_user
from tests.guests.pump import Pump
from tests.guests.switch import Switch
from tests.guests.waiting import wait_for

NewNamespace = Callable[[str], Namespace]
pytestmark = pytest.mark.guest

GUEST, GATEWAY, HOST = "192.168.127.2", "192.168.127.1", "192.168.127.254"
MAC = "5a:94:ef:e4:0c:ee"
OUTSIDE = "198.51.100.2"


class Place(NamedTuple):
    """A host with a switch, one guest on it, and the Internet."""

    switch: Switch
    host: Namespace
    guest: Namespace
    internet: Namespace

    def get(self, room: Namespace, url: str) -> str:
        """Fetch ``url`` in a namespace; raises CommandError."""
        return room.run(f"curl --silent --show-error --fail --max-time 10 --noproxy '*' '{url}' 2>&1")

    def serve(self, room: Namespace, address: str, text: str) -> int:
        """Serve a page with that text in a namespace; return the port, which the kernel chose."""
        directory = self.switch.directory / f"pages-{room.netns}-{text}"
        directory.mkdir()
        (directory / "index.html").write_text(text)
        log = directory / "log"
        where = f"[{address}]" if ":" in address else address
        program = (
            "import functools, http.server as h, socket, sys\n"
            "class S(h.ThreadingHTTPServer):\n"
            f"    address_family = socket.{'AF_INET6' if ':' in address else 'AF_INET'}\n"
            f"handler = functools.partial(h.SimpleHTTPRequestHandler, directory='{directory}')\n"
            f"s = S(('{address}', 0), handler)\n"
            f"open('{log}', 'w').write(str(s.server_port))\n"
            "s.serve_forever()"
        )
        script = directory / "serve.py"
        script.write_text(program)
        room.start(f"python3 {script}")
        port = wait_for(lambda: log.exists() and log.read_text(), f"a server at {where}")
        return int(port)


@pytest.fixture(params=["root", "user"])
def place(request: pytest.FixtureRequest, namespace: NewNamespace) -> Iterator[Callable[..., Place]]:
    """Give a factory: flags of the gateway to a place, once a test."""
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY, "curl"))
    as_root = request.param == "root"
    if not as_root:
        requirements.require(("user namespaces",))
    with contextlib.ExitStack() as stack:

        def make(*flags: str) -> Place:
            host, guest, internet = namespace("host"), namespace("guest"), namespace("internet")
            host.run(f"ip link add out type veth peer name eth0 netns {internet.netns}")
            host.run("echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range")  # as distributions have it
            host.run("ip addr add 198.51.100.1/24 dev out; ip link set out up")
            internet.run(f"ip addr add {OUTSIDE}/24 dev eth0; ip link set eth0 up")
            directory = stack.enter_context(short_directory())
            directory.chmod(0o777)
            switch = Switch(directory, wrap=partial(_in_namespace, host.netns, None if as_root else NOBODY))
            stack.callback(switch.kill)
            switch.start("--gateway", *flags, *switch.arguments(qemu=True))
            pump = Pump(guest.open_tap(MAC), f"unix://{switch.qemu}")
            stack.callback(pump.close)
            guest.run(f"ip addr add {GUEST}/24 dev eth0; ip route add default via {GATEWAY}")
            switch.wait_live(2)
            guest.ping(GATEWAY)
            stack.callback(switch.stop)
            return Place(switch, host, guest, internet)

        yield make


def _in_namespace(netns: str, user: int | None, command: list[str]) -> list[str]:
    return ["ip", "netns", "exec", netns, *(command if user is None else as_user(user, command))]


def test_the_host_and_the_outside_are_reached_and_a_refusal_is_a_refusal(place: Callable[..., Place]) -> None:
    here = place()
    at_host = here.serve(here.host, "127.0.0.1", "loopback")
    outside = here.serve(here.internet, OUTSIDE, "outside")
    assert here.get(here.guest, f"http://{HOST}:{at_host}/") == "loopback"
    assert here.get(here.guest, f"http://{OUTSIDE}:{outside}/") == "outside"
    for refused in (f"http://{HOST}:9/", f"http://{OUTSIDE}:9/"):
        with pytest.raises(CommandError, match=r"reset by peer|Recv failure|Empty reply|Failed to connect"):
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
    assert here.host.run(f"curl --silent --max-time 10 --unix-socket {path} http://guest/") == "guest"
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
    (pid,) = [pid for pid in here.switch.processes() if b"\0-m\0gateway\0" in _command_line(pid)]
    os.kill(pid, 9)

    def listed() -> bool:
        done = here.switch.command("forward", "list", check=False)
        return done.stdout.split() == [added]

    wait_for(lambda: pid not in here.switch.processes() and listed(), "the next gateway with its forward")
    here.switch.wait_live(2)
    url = f"http://127.0.0.1:{added.split(':')[2]}/"
    assert here.get(here.host, url) == "guest"


def test_names_of_the_outside_come_from_the_resolver_that_is_named(place: Callable[..., Place]) -> None:
    here = place("--resolver", f"{OUTSIDE}:5300")
    with _resolver(here.internet):
        answer = here.guest.run(f"busybox nslookup -type=a outside.example {GATEWAY}")
        assert "203.0.113.7" in answer


@pytest.mark.parametrize(
    ("flags", "host", "outside"),
    [
        (("--no-outbound",), True, False),
        (("--no-host-access",), False, True),
        (("--deny", "198.51.100.0/24"), True, False),
    ],
)
def test_what_guests_may_not_reach(
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


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _global(room: Namespace) -> str:
    for line in room.run("ip -6 addr show dev eth0 scope global").splitlines():
        words = line.split()
        if words[:1] == ["inet6"] and "tentative" not in words:
            return words[1].partition("/")[0]
    return ""


class _Answer(socketserver.BaseRequestHandler):
    """Answers every question for an address with 203.0.113.7, and any other with nothing."""

    def handle(self) -> None:
        query, sock = self.request
        end = query.index(b"\0", 12) + 5
        is_a = query[end - 4 : end - 2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("203.0.113.7") if is_a else b""
        counts = b"\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
        sock.sendto(query[:2] + b"\x81\x80" + counts + query[12:end] + answer, self.client_address)


@contextlib.contextmanager
def _resolver(room: Namespace) -> Iterator[None]:
    def make() -> socketserver.UDPServer:
        return socketserver.UDPServer((OUTSIDE, 5300), _Answer)

    server = room.inside(make)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

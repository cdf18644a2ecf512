"""A place for tests of the gateway: a switch that has one, a guest, a host and an Internet of its own.

The switch runs in a namespace of the test's own, the "host", which has a cable to another one, the
"Internet"; so nothing here can reach anything else, and the host's routes and ports are known.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

NewNamespace = Callable[[str], Namespace]

GUEST, GATEWAY, HOST = "192.168.127.2", "192.168.127.1", "192.168.127.254"
MAC = "5a:94:ef:e4:0c:ee"
OUTSIDE = "198.51.100.2"
RESOLVER = f"{OUTSIDE}:5300"
FOUND = "203.0.113.7"
"""What the resolver answers."""


class Place(NamedTuple):
    """A host with a switch, one guest on it, and the Internet."""

    switch: Switch
    host: Namespace
    guest: Namespace
    internet: Namespace
    pump: Pump

    def say_resolvers(self, text: str) -> None:
        """Change the host's ``resolv.conf``, which has to be one of its own."""
        _resolv_conf(self.host).write_text(text)

    def get(self, room: Namespace, url: str) -> str:
        """Fetch ``url`` in a namespace; raises CommandError."""
        return room.run(f"curl --silent --show-error --fail --max-time {PATIENCE} --noproxy '*' '{url}' 2>&1")

    def serve(self, room: Namespace, address: str, text: str) -> int:
        """Serve a page with that text in a namespace; return the port, which the kernel chose."""
        directory = self.switch.directory / f"pages-{room.netns}-{text}"
        directory.mkdir()
        (directory / "index.html").write_text(text)
        log = directory / "log"
        where = f"[{address}]" if ":" in address else address
        program = (
            "import functools, http.server as h, socket\n"
            "socket.getfqdn = str\n"  # which would ask a resolver that is not there
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
    """Give a factory: flags of the gateway to a place, once a test.

    ``services``: the HTTP API is at ``services.sock`` in the switch's directory. ``pings``: allowed.
    ``resolv_conf``: what the host's file says, which is one of its own then.
    """
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY, "curl"))
    as_root = request.param == "root"
    if not as_root:
        requirements.require(("user namespaces",))
    with contextlib.ExitStack() as stack:

        def make(
            *flags: str, services: bool = False, pings: bool = True, resolv_conf: str | None = None
        ) -> Place:
            host, guest, internet = namespace("host"), namespace("guest"), namespace("internet")
            if resolv_conf is not None:
                stack.enter_context(_own_resolv_conf(host, resolv_conf))
            host.run(f"ip link add out type veth peer name eth0 netns {internet.netns}")
            if pings:  # as distributions have it
                host.run("echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range")
            host.run("ip addr add 198.51.100.1/24 dev out; ip link set out up")
            internet.run(f"ip addr add {OUTSIDE}/24 dev eth0; ip link set eth0 up")
            directory = stack.enter_context(short_directory())
            directory.chmod(0o777)
            switch = Switch(directory, wrap=partial(_in_namespace, host.netns, None if as_root else NOBODY))
            stack.callback(switch.kill)
            api = ["--services", f"unix://{directory / 'services.sock'}"] if services else []
            switch.start("--gateway", *flags, *api, *switch.arguments(qemu=True))
            pump = Pump(guest.open_tap(MAC), f"unix://{switch.qemu}")
            stack.callback(pump.close)
            guest.run(f"ip addr add {GUEST}/24 dev eth0; ip route add default via {GATEWAY}")
            switch.wait_live(2)
            guest.ping(GATEWAY)
            stack.callback(switch.stop)
            return Place(switch, host, guest, internet, pump)

        yield make


def _resolv_conf(room: Namespace) -> Path:
    """Return the file that ``ip netns exec`` puts in the place of ``/etc/resolv.conf`` (ip-netns(8))."""
    return Path("/etc/netns", room.netns, "resolv.conf")


@contextlib.contextmanager
def _own_resolv_conf(room: Namespace, text: str) -> Iterator[None]:
    path = _resolv_conf(room)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink()
        path.parent.rmdir()


def _in_namespace(netns: str, user: int | None, command: list[str]) -> list[str]:
    return ["ip", "netns", "exec", netns, *(command if user is None else as_user(user, command))]


class _Answer(socketserver.BaseRequestHandler):
    """Answers every question for an address with FOUND, and any other with nothing."""

    def handle(self) -> None:
        query, sock = self.request
        end = query.index(b"\0", 12) + 5
        is_a = query[end - 4 : end - 2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(FOUND) if is_a else b""
        counts = b"\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
        sock.sendto(query[:2] + b"\x81\x80" + counts + query[12:end] + answer, self.client_address)


@contextlib.contextmanager
def resolver(room: Namespace) -> Iterator[None]:
    """Answer at RESOLVER, in the namespace that is the Internet."""

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

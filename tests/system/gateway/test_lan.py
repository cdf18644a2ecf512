"""A whole LAN on one gateway: two QEMU guests and two namespaces, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import Images, short_directory
from tests.helpers.guests.machine import Machine
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.qemu import QemuGuest, unix_stream
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest

CLIENT = r"""#!/bin/sh
case $1 in bound)
    ip -4 addr flush dev $interface scope global
    ip addr add $ip/$mask dev $interface
    ip route replace default via $router
    echo $ip >SCRIPT.lease
esac
"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the host's loopback")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[int]:
    """The port of a web server at the host's loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def lease(machine: Machine, script: str) -> str:
    """Have busybox's client ask for a lease; return the address."""
    machine.run(f"rm -f {script}")
    for line in CLIENT.replace("SCRIPT", script).splitlines():
        machine.run(f"echo '{line}' >>{script}")
    machine.run(f"chmod 755 {script}")
    machine.run(
        f"busybox udhcpc -i {machine.interface} -n -q -t 50 -T 1 -x hostname:{machine.name} -s {script}"
    )
    return machine.run(f"cat {script}.lease").strip()


def global_ipv6(machine: Machine, switch: Switch) -> str:
    """Return the address that the machine made of the announced prefix."""

    def usable() -> str:
        for line in machine.run(f"busybox ip -6 addr show dev {machine.interface} scope global").splitlines():
            words = line.split()
            if words[:1] == ["inet6"] and "tentative" not in words:
                return words[1].partition("/")[0]
        return ""

    def missing() -> str:
        seen = machine.run(f"busybox ip -6 addr show dev {machine.interface}; grep Icmp6 /proc/net/snmp6")
        told = "".join(switch.command(each, "--json").stdout for each in ("list", "status"))
        return f"{machine.name} to have an address by router advertisement; it has {seen}{told}{switch.log()}"

    return wait_for(usable, missing)


def resolved(machine: Machine, name: str) -> str:
    """Return what the gateway answers for a name."""
    return machine.run(f"busybox nslookup -type=a {name} 192.168.127.1").partition("Name")[2]


def fetch(address: str, port: int) -> str:
    """Fetch a page as a client of the host."""
    with socket.create_connection((address, port), PATIENCE) as sock:
        sock.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        data = b""
        while more := sock.recv(4096):
            data += more
    return data.decode()


@pytest.mark.parametrize("user", [None, NOBODY], ids=["root", "user"])
def test_leases_names_both_protocols_the_host_and_a_forward(
    user: int | None, guest_images: Images, namespace: Callable[[str], Namespace], page: int
) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.QEMU, *requirements.GATEWAY))
    if user is not None:
        requirements.require(("user namespaces",))
    assert guest_images.vmlinux is not None
    with short_directory() as directory, contextlib.ExitStack() as stack:
        directory.chmod(0o777)
        switch = Switch(directory, wrap=list if user is None else partial(as_user, user))
        stack.callback(switch.kill)
        switch.start("--gateway", *switch.arguments(qemu=True))
        boot = partial(QemuGuest, vmlinux=guest_images.vmlinux, initramfs=guest_images.initramfs)
        guests = [
            stack.enter_context(
                contextlib.closing(boot(f"qemu{n}", unix_stream(switch.qemu), f"52:54:00:00:78:0{n}"))
            )
            for n in (1, 2)
        ]
        rooms = [namespace(f"room{n}") for n in (1, 2)]
        for number, room in enumerate(rooms, 3):
            tap = room.open_tap(f"52:54:00:00:78:0{number}")
            stack.enter_context(contextlib.closing(Pump(tap, f"unix://{switch.qemu}")))
        machines: list[Machine] = [*[guest.wait_ready() for guest in guests], *rooms]
        switch.wait_live(5)
        six = {each: global_ipv6(each, switch) for each in machines}
        four = {each: lease(each, f"/tmp/dhcp-{switch.directory.name}-{each.name}") for each in machines}
        for each in machines:
            for other in machines:
                if other is not each:
                    assert four[other] in resolved(each, f"{other.name}.containers.internal")
                    each.ping(four[other])
                    each.ping(six[other])
        for room in rooms:
            assert "192.168.127.254" in resolved(room, "host.containers.internal")
            url = f"http://192.168.127.254:{page}/"
            assert (
                room.run(f"curl --silent --max-time {PATIENCE} --noproxy '*' {url}") == "the host's loopback"
            )
        guest = machines[0]
        guest.run("mkdir -p /tmp/www; echo from the guest >/tmp/www/page")
        guest.start("httpd -f -p 80 -h /tmp/www")
        added = switch.command("forward", "add", f"tcp:127.0.0.1:0:{four[guest]}:80").stdout.split()[1]
        port = int(added.split(":")[2])

        def served() -> bool:
            with contextlib.suppress(ConnectionResetError):  # its server is still starting
                return "from the guest" in fetch("127.0.0.1", port)
            return False

        wait_for(served, "the guest's page")
        switch.command("forward", "remove", added)
        with pytest.raises(ConnectionRefusedError):
            fetch("127.0.0.1", port)
        for room in rooms:
            room.run(f"rm -f /tmp/dhcp-{switch.directory.name}-{room.name}*")
        switch.stop()

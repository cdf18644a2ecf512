"""Faults on the way to the host and to the outside, and of the gateway: each is made, and named."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from forwarder.names import GATEWAY_MAC
from gateway.lan.announce import link_local
from tests.helpers.faults import named
from tests.helpers.gateway.place import GATEWAY, GUEST, RESOLVER, Place, resolver
from tests.helpers.gateway.processes import process
from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.ports import attach
from tests.helpers.guests.waiting import wait_for

NewNamespace = Callable[[str], Namespace]
QUESTIONS = (
    'python3 -c "import socket as s; k = s.socket(s.AF_INET, s.SOCK_DGRAM); '
    f"[k.sendto(bytes(12), ('{GATEWAY}', 53)) for _ in range(4000)]\""
)
ROUTE = "ip route add 203.0.113.0/24 via 198.51.100.2"
"""On the host, to the address outside that explain is asked about."""
DHCP_ANSWER = (
    'python3 -c "import socket as s; k = s.socket(s.AF_INET, s.SOCK_DGRAM); '
    "k.setsockopt(s.SOL_SOCKET, s.SO_BROADCAST, 1); k.bind(('', 67)); "
    "k.sendto(bytes([2, 1, 6, 0]) + bytes(296), ('255.255.255.255', 68))\""
)


@pytest.mark.guest
@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_faults_on_the_way_to_the_outside(place: Callable[..., Place]) -> None:
    here = place("--deny", "203.0.113.0/24")
    running = here.switch
    names = {"web": next(row["name"] for row in running.ports() if row["name"] != "gateway")}
    named(running, "refused by policy", names)
    named(running, "nothing listens at the far end", names)
    named(running, "a VM to which no forward leads", names)
    running.command("forward", "add", f"tcp:127.0.0.1:0:{GUEST}:81")
    (forward,) = running.command("forward", "list").stdout.split()
    named(
        running,
        "a forward to a port where no program listens",
        again=lambda: here.host.run(f"curl --max-time 5 http://127.0.0.1:{forward.split(':')[2]} || true"),
    )
    here.host.run("nft add table ip f; nft add chain ip f out '{ type filter hook output priority 0; }'")
    here.host.run("nft add rule ip f out ip daddr 198.51.100.2 tcp dport 9 drop")
    named(running, "a firewall on the host", names)


@pytest.mark.guest
@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_faults_of_the_guest_and_of_the_gateway(place: Callable[..., Place], namespace: NewNamespace) -> None:
    here = place()
    running, guest = here.switch, here.guest
    names = {"web": next(row["name"] for row in running.ports() if row["name"] != "gateway")}
    named(running, "no route on the host", names)
    here.host.run(ROUTE)
    quiet = attach(running, "quiet")
    running.wait_live(3)
    named(
        running, "no route in the guest", {"web": "quiet"}, lambda: quiet.send(build_frame(BROADCAST, mac(9)))
    )
    named(running, "two DHCP servers", names, lambda: guest.run(DHCP_ANSWER))
    named(running, "a VM that asks the gateway too much", names, lambda: guest.run(QUESTIONS))
    guest.run("ip route add 203.0.113.0/24 dev eth0")
    named(
        running,
        "a netmask that is too wide",
        names,
        lambda: guest.run("busybox ping -c 3 -W 1 203.0.113.9 || true"),
    )
    guest.run("ip route del 203.0.113.0/24")
    astray = namespace("astray")
    running.command("attach", "--tap", f"eth0,netns={astray.path}", "--name", "astray")
    astray.run("ip link set eth0 up")
    greeting = f"busybox ping -6 -c 1 -W 1 {IPv6Address(link_local(GATEWAY_MAC))}%eth0 || true"
    named(running, "no lease", {"web": "astray"}, lambda: astray.run(greeting))
    astray.run("ip addr add 192.168.127.3/24 dev eth0")
    astray.run("ip route add default via 192.168.127.99")
    named(
        running,
        "a wrong gateway in the guest",
        {"web": "astray"},
        lambda: astray.run("busybox ping -c 3 -W 1 203.0.113.9 || true"),
    )
    pid = process(running, "gateway")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "stopped or stuck" in named(running, "a gateway that hangs", names)
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.guest
@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_resolvers_that_do_not_answer(place: Callable[..., Place]) -> None:
    here = place("--resolver", RESOLVER)
    here.host.run(ROUTE)
    names = {"web": next(row["name"] for row in here.switch.ports() if row["name"] != "gateway")}

    def look_up() -> None:
        here.guest.run(f"busybox nslookup example.org {GATEWAY} || true")

    named(here.switch, "resolvers of the host that do not answer", names, look_up)

    def states() -> list[str]:
        lines = here.switch.command("events", "--json").stdout.splitlines()
        return [each["state"] for each in map(json.loads, lines) if each["event"] == "resolver"]

    with resolver(here.internet):
        look_up()
        wait_for(lambda: states() == ["silent", "live"], states)


@pytest.mark.guest
@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_a_gateway_that_was_killed(place: Callable[..., Place]) -> None:
    here = place()
    here.host.run(ROUTE)
    running = here.switch
    names = {"web": next(row["name"] for row in running.ports() if row["name"] != "gateway")}
    os.kill(process(running, "gateway"), signal.SIGKILL)
    named(running, "a gateway that was killed", names)

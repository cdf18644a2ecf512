"""``supervisor run --gateway``: guests get addresses and names from it, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.core.claims import arp
from tests.helpers.gateway.dhcp_client import ASKED, DISCOVER, RELEASE, REQUEST, request
from tests.helpers.gateway.link import Link, dhcp_frame
from tests.helpers.gateway.processes import process, processes
from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import mac
from tests.helpers.guests.fixtures import StartSwitch, short_directory
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.probes import kill_supervisor

NewNamespace = Callable[[str], Namespace]
pytestmark = pytest.mark.guest

UDHCPC = """#!/bin/sh
case $1 in bound|renew)
    ip -4 addr flush dev $interface scope global
    ip addr add $ip/$mask dev $interface
    ip link set $interface mtu ${mtu:-1500}
    ip route replace default via $router
    echo "$ip $mask $router $dns $mtu $search" > LEASE
esac
"""

MOVED = b"\x52\x54\0\0\x77\x31"


@pytest.fixture(autouse=True)
def _needs() -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))


class Guest:
    """A namespace that is a guest with a DHCP client: busybox's, as small guests have it."""

    def __init__(self, switch: Switch, room: Namespace, mac: str, name: str) -> None:
        self.switch = switch
        self.room = room
        self.name = name
        room.run(f"ip link set eth0 address {mac} up")
        self._lease = switch.directory / f"lease-{name}"
        self._script = switch.directory / f"udhcpc-{name}"
        self._script.write_text(UDHCPC.replace("LEASE", str(self._lease)))
        self._script.chmod(0o755)

    def lease(self) -> list[str]:
        """Ask for a lease: address, mask, router, resolver, MTU, search domains."""
        self.room.run(
            f"busybox udhcpc -i eth0 -n -q -t 50 -T 1 -O search -O mtu -s {self._script} "
            f"-x hostname:{self.name}"
        )
        return self._lease.read_text().split()

    def look_up(self, name: str, kind: str = "a", server: str = "192.168.127.1") -> str:
        """Return the answer to a question for a name; raises CommandError if there is none."""
        return self.room.run(f"busybox nslookup -type={kind} {name} {server}")


def guest_of(switch: Switch, namespace: NewNamespace, number: int) -> Guest:
    """Attach a guest by a TAP."""
    name = f"guest{number}"
    room = namespace(name)
    switch.command("attach", "--tap", f"eth0,netns={room.netns}", "--name", name)
    return Guest(switch, room, f"52:54:00:00:77:{number:02x}", name)


def test_guests_get_leases_and_names_and_reach_the_gateway_and_each_other(
    switch: StartSwitch, namespace: NewNamespace
) -> None:
    running = switch(
        *(
            "--gateway",
            "--mtu",
            "9000",
            "--search-domain",
            "lab.example",
            "--dns-record",
            "db.lab.example=10.9.8.7",
        ),
        *("--static-lease", "52:54:00:00:77:02=192.168.127.77,second"),
    )
    assert [port["name"] for port in running.ports()] == ["gateway"]
    first, second = guest_of(running, namespace, 1), guest_of(running, namespace, 2)
    running.wait_live(3)
    address, mask, router, resolver, mtu, search = first.lease()
    assert (mask, router, resolver, mtu, search) == (
        "24",
        "192.168.127.1",
        "192.168.127.1",
        "9000",
        "lab.example",
    )
    assert second.lease()[0] == "192.168.127.77"
    assert "9000" in first.room.run("ip link show eth0")
    first.room.ping("192.168.127.1", size=8000)
    first.room.ping("192.168.127.77")
    assert address in second.look_up("guest1.containers.internal")
    assert "192.168.127.77" in first.look_up("second")
    assert "192.168.127.1" in first.look_up("gateway.containers.internal").partition("Name")[2]
    assert "192.168.127.254" in first.look_up("host.containers.internal")
    assert "10.9.8.7" in first.look_up("db.lab.example")


def test_a_lease_outlives_the_gateway_and_other_zones(switch: StartSwitch, namespace: NewNamespace) -> None:
    requirements.require(("curl",))
    with short_directory() as directory:
        check_that_a_lease_outlives(switch, namespace, directory / "services.sock")


def check_that_a_lease_outlives(switch: StartSwitch, namespace: NewNamespace, services: Path) -> None:
    running = switch("--gateway", "--services", f"unix://{services}")
    guest = guest_of(running, namespace, 1)
    running.wait_live(2)
    before = guest.lease()
    add = (
        f"curl --silent --fail --max-time {PATIENCE} --unix-socket {services} http://gvproxy/services/dns/add"
    )
    guest.room.run(f"""{add} --data '{{"Name": "x.", "DefaultIP": "10.0.0.1"}}'""")
    assert "10.0.0.1" in guest.look_up("a.x")
    assert before[0] in guest.look_up("guest1.containers.internal")
    assert guest.lease() == before
    for victim in ("gateway.inside", "gateway"):
        (pid,) = processes(running, victim)
        os.kill(pid, signal.SIGKILL)
        wait_for(
            lambda pid=pid, victim=victim: processes(running, victim) not in ([pid], []), f"another {victim}"
        )
        running.wait_live(2)
        assert [port["name"] for port in running.ports()] == ["guest1", "gateway"]
        assert before[0] in guest.look_up("guest1.containers.internal")
        assert guest.lease() == before
    assert "is started again" in running.log()


def test_a_vm_that_is_started_again_at_once_keeps_its_address(switch: StartSwitch) -> None:
    running = switch("--gateway", qemu=True)

    def keeps_it() -> bool:
        old = Link(running.qemu)
        address = old.lease(MOVED)
        old.close()
        new = Link(running.qemu)
        again = new.lease(MOVED)
        new.close()
        return again == address

    # On a busy machine the end of a link may be heard later than a guest can wait.
    assert any(keeps_it() for _ in range(20))


def test_a_vm_is_heard_as_soon_as_the_next_supervisor_is_ready(switch: StartSwitch) -> None:
    running = switch("--gateway", qemu=True)
    link = Link(running.qemu)
    address = link.lease(MOVED)
    for _ in range(3):
        kill_supervisor(running)
        running.start("--gateway", *running.arguments(qemu=True))
        link.send(dhcp_frame(MOVED, request(REQUEST, MOVED, own=address)))  # once
        assert link.answer().address == address
    link.close()


def test_ipv6_is_announced(switch: StartSwitch, namespace: NewNamespace) -> None:
    running = switch("--gateway")
    first, second = guest_of(running, namespace, 1), guest_of(running, namespace, 2)
    running.wait_live(3)

    def address(guest: Guest) -> str | None:
        found = [
            words[1].partition("/")[0]
            for line in guest.room.run("ip -6 addr show dev eth0 scope global").splitlines()
            if (words := line.split())[:1] == ["inet6"] and "tentative" not in words
        ]
        return found[0] if found else None

    ours = wait_for(lambda: address(first), "an address by router advertisement")
    theirs = wait_for(lambda: address(second), "an address by router advertisement")
    assert ours.startswith("fd")
    first.room.ping(theirs)
    prefix = ":".join(ours.split(":")[:3])
    first.room.ping(f"{prefix}::1")
    assert f"{prefix}::1" in first.look_up("gateway.containers.internal", "aaaa", f"{prefix}::1")
    for guest in (first, second):
        guest.lease()
    wait_for(
        lambda: theirs in first.look_up("guest2.containers.internal", "aaaa"),
        "the gateway to know it",
    )
    assert "guest2.containers.internal" in first.room.run(f"busybox nslookup {theirs} 192.168.127.1")


def test_no_guest_can_pass_for_the_gateway(switch: StartSwitch, namespace: NewNamespace) -> None:
    running = switch("--gateway")
    guest = guest_of(running, namespace, 1)
    running.wait_live(2)
    guest.name = "gateway"
    guest.lease()
    assert "192.168.127.1\n" in guest.look_up("gateway.containers.internal").partition("Name")[2]
    (port,) = [port for port in running.json("macs")["macs"] if port["mac"] == "5a:94:ef:e4:0c:dd"]
    assert port["pinned"]


def test_a_supervisor_that_follows_one_that_was_killed_has_one_gateway(
    switch: StartSwitch, namespace: NewNamespace
) -> None:
    running = switch("--gateway")
    guest = guest_of(running, namespace, 1)
    running.wait_live(2)
    before = guest.lease()
    assert running.process is not None
    running.process.kill()
    running.process.communicate()
    wait_for(lambda: not processes(running, "gateway"), "the gateway to end with its supervisor")
    running.start("--gateway")
    names = [port["name"] for port in running.wait_live(2)]
    assert sorted(names) == ["gateway", "guest1"]
    assert guest.lease() == before


def test_leases_outlive_a_supervisor_that_cannot_start(switch: StartSwitch, namespace: NewNamespace) -> None:
    running = switch("--gateway")
    guest = guest_of(running, namespace, 1)
    running.wait_live(2)
    guest.lease()
    before = running.json("leases")
    kill_supervisor(running)
    failed = running.command("run", "--gateway", "--listen-bess", "unixpacket:///no/where", check=False)
    assert failed.returncode == 1
    running.start("--gateway")
    running.wait_live(2)
    after = running.json("leases")
    names = ("address", "mac", "name", "state")
    assert [[row[key] for key in names] for row in after["leases"]] == [
        [row[key] for key in names] for row in before["leases"]
    ]


def test_a_stopped_gateway_does_not_outlive_its_supervisor(switch: StartSwitch) -> None:
    running = switch("--gateway")
    added = running.command("forward", "add", "tcp:127.0.0.1:0:192.168.127.2:80").stdout.split()[1]
    old = [process(running, what) for what in ("gateway", "gateway.inside")]
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    kill_supervisor(running)
    running.start("--gateway", "--forward", added)  # its port is free
    assert added in running.command("forward", "list").stdout
    wait_for(lambda: not set(old) & set(running.processes()), "the old gateway to be gone")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ["--subnet", "10.77.0.0/99"],
            "subnet: '10.77.0.0/99' is no IPv4 network; write it like 192.168.127.0/24",
        ),
        (["--subnet", "8.8.8.0/24"], "subnet: 8.8.8.0/24 is no private network"),
        (["--mtu", "99"], "mtu: 99 is not a number from 1280 to 65520"),
        (["--static-lease", "52:54:00:00:00:01=10.0.0.1"], "10.0.0.1 is outside of 192.168.127.0/24"),
    ],
)
def test_a_failed_start_is_one_line_and_leaves_nothing_behind(flags: list[str], line: str) -> None:
    with short_directory() as directory:
        switch = Switch(directory)
        done = switch.command("run", "--gateway", *flags, check=False)
        assert done.returncode == 2
        assert sum(line in each for each in done.stderr.splitlines()) == 1, "a log line may come after it"
        assert "Traceback" not in done.stderr
        switch.assert_nothing_left()


def test_an_ordinary_user_has_the_same(namespace: NewNamespace) -> None:
    requirements.require(("user namespaces",))
    with short_directory() as directory:
        directory.chmod(0o777)
        switch = Switch(directory, wrap=partial(as_user, NOBODY))
        try:
            switch.start("--gateway", *switch.arguments(qemu=True))
            room = namespace("guest1")
            pump = Pump(room.open_tap("52:54:00:00:77:01"), f"unix://{switch.qemu}")
            with contextlib.closing(pump):
                guest = Guest(switch, room, "52:54:00:00:77:01", "guest1")
                assert guest.lease()[2] == "192.168.127.1"
                room.ping("192.168.127.1")
                assert "192.168.127.1" in guest.look_up("gateway.containers.internal").partition("Name")[2]
            switch.stop()
        finally:
            switch.kill()


@pytest.mark.parametrize("number", [50, 253])
def test_an_address_that_a_vm_was_given_by_hand_is_leased_to_no_other(
    switch: StartSwitch, number: int
) -> None:
    running = switch("--gateway", qemu=True)
    own = f"192.168.127.{number}"
    with contextlib.closing(Link(running.qemu)) as by_hand, contextlib.closing(Link(running.qemu)) as asker:
        running.wait_live(3)
        by_hand.send(arp(mac(1), own, "192.168.127.9"))  # as for its first packet to anybody

        def other() -> str:
            """Ask for that address; return another one that is offered instead."""
            asker.send(dhcp_frame(mac(2), request(DISCOVER, mac(2), {ASKED: socket.inet_aton(own)})))
            offered = asker.answer().address
            if offered == own:  # the gateway has not heard of it yet
                asker.send(dhcp_frame(mac(2), request(RELEASE, mac(2), own=own)))
            return offered if offered != own else ""

        wait_for(other, "another address")
        by_hand.send(dhcp_frame(mac(1), request(DISCOVER, mac(1), {ASKED: socket.inet_aton(own)})))
        assert by_hand.answer().address == own

"""Each fault of the table is made for real, and one command names it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.faults import FAULTS, named
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.ports import attach, meet
from tests.helpers.guests.switch import Switch

StartSwitch = Callable[..., Switch]
NewNamespace = Callable[[str], Namespace]
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "operating.md"
Pair = tuple[Switch, FakeVM, FakeVM]


def test_duplicate_mac(pair: Pair) -> None:
    running, web, db = pair
    thief = attach(running, "thief")
    running.wait_live(3)
    vms = [db, thief]

    def send() -> None:
        vms.reverse()
        for vm in vms:
            vm.send(build_frame(BROADCAST, mac(2), 70))
        for vm in (web, *vms):
            vm.drain()

    assert mac(2).hex(":") in named(running, "two VMs have one MAC address", again=send)


@pytest.mark.parametrize(
    ("fault", "setting", "first", "then"),
    [
        ("a VM sends from an address that is not its own", "pin=" + mac(1).hex(":"), 7, 8),
        ("more broadcasts than the limit", "limit-broadcast=1", 1, 1),
        ("a full table of MAC addresses", "limit-macs=1", 7, 8),
    ],
)
def test_what_the_switch_drops(pair: Pair, fault: str, setting: str, first: int, then: int) -> None:
    running, web, db = pair
    running.command("set", "web", setting)

    def send() -> None:
        web.send(*[build_frame(BROADCAST, mac(number), 70) for number in (first, then)] * 5)
        db.drain()

    assert "web cannot reach db: web " in named(running, fault, again=send)


def test_isolation(pair: Pair) -> None:
    running = pair[0]
    running.command("set", "web", "isolated=true")
    named(running, "isolation")
    running.command("set", "web", "reach=db")
    running.command("set", "db", "isolated=true")
    named(running, "isolation on one side only")


def test_long_packets(pair: Pair) -> None:
    running, web, db = pair
    running.command("set", "db", "mtu=1280")

    def send() -> None:
        web.send(build_frame(mac(2), mac(1), 1514))
        db.send(build_frame(mac(1), mac(2), 100))
        db.drain()

    named(running, "a black hole for long packets", again=send)


def test_a_vm_that_never_sends(switch: StartSwitch) -> None:
    running = switch()
    web, db = attach(running, "web"), attach(running, "db")
    running.wait_live(2)
    named(running, "a VM that never sends", again=lambda: web.send(build_frame(BROADCAST, mac(1))))
    del db


def test_a_vm_that_takes_no_frames(pair: Pair) -> None:
    running, web, db = pair
    frame = build_frame(mac(2), mac(1), 1514)
    named(running, "a VM that takes no frames", again=lambda: web.send(*[frame] * 400))
    db.drain()


def test_a_vm_that_reads_too_slowly(pair: Pair) -> None:
    running, web, db = pair
    frame = build_frame(mac(2), mac(1), 1514)

    def send() -> None:
        web.send(*[frame] * 3000)
        db.drain()
        db.send(build_frame(mac(1), mac(2), 1514))
        web.drain()

    named(running, "a VM that reads too slowly", again=send)


def test_a_vm_that_has_left(pair: Pair) -> None:
    running, _, db = pair
    db.close()
    named(running, "a VM that has left")


def test_a_port_parked_after_crashes(pair: Pair) -> None:
    running = pair[0]

    def kill() -> None:
        pid = next(row["worker"]["pid"] for row in running.ports() if row["name"] == "db")
        if pid:
            os.kill(pid, signal.SIGKILL)

    named(running, "a port parked after crashes", again=kill)
    running.command("detach", "db")


@pytest.fixture
def kernels(switch: StartSwitch, namespace: NewNamespace) -> tuple[Switch, Namespace, Namespace]:
    """Two kernels behind TAPs: web has 10.99.0.1, db has no address yet."""
    running = switch()
    rooms = namespace("web"), namespace("db")
    for room in rooms:
        running.command("attach", "--tap", f"eth0,netns={room.path}", "--name", room.name)
        room.run("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip link set eth0 up")
    rooms[0].run("ip addr add 10.99.0.1/24 dev eth0")
    running.wait_live(2)
    return running, *rooms


Kernels = tuple[Switch, Namespace, Namespace]


def test_another_subnet(kernels: Kernels) -> None:
    running, web, db = kernels
    db.run("ip addr add 10.77.0.2/24 dev eth0")

    def ping() -> None:
        web.run("busybox ping -c 1 -W 1 10.99.0.2 || true")
        db.run("busybox ping -c 1 -W 1 10.77.0.1 || true")

    named(running, "another subnet", again=ping)


def test_mtus_that_differ(kernels: Kernels) -> None:
    running, web, db = kernels
    db.run("ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 mtu 1400")
    named(
        running, "MTUs that differ", again=lambda: web.run("busybox ping -c 1 -W 2 -s 1472 10.99.0.2 || true")
    )


def test_a_filter_in_the_guest(kernels: Kernels) -> None:
    running, web, db = kernels
    db.run("ip addr add 10.99.0.2/24 dev eth0; nft add table ip f")
    db.run("nft add chain ip f in '{ type filter hook input priority 0; }'")
    db.run("nft add rule ip f in ip saddr 10.99.0.1 drop")
    named(
        running,
        "a filter in the guest",
        again=lambda: web.run("busybox ping -c 3 -i 0.2 -W 1 10.99.0.2 || true"),
    )


def test_a_filter_that_came_later(kernels: Kernels) -> None:
    """The guest goes on answering ARP, and each ping is followed by such an answer."""
    running, web, db = kernels
    db.run("ip addr add 10.99.0.2/24 dev eth0")
    web.run("busybox ping -c 1 -W 5 10.99.0.2")
    db.run("nft add table ip f; nft add chain ip f in '{ type filter hook input priority 0; policy drop; }'")

    def ping() -> None:
        web.run("ip neigh flush all; busybox ping -c 1 -W 1 10.99.0.2 || true")

    assert "none has come back for" in named(running, "a filter that came later", again=ping)


def test_a_guest_that_only_answers_is_found_by_its_address(kernels: Kernels) -> None:
    """A kernel that has no traffic of its own does not ask: it learns its neighbour from the question."""
    running, web, db = kernels
    db.run("ip addr add 10.99.0.2/24 dev eth0")
    web.run("busybox ping -c 1 -W 5 10.99.0.2")
    told = json.loads(running.command("explain", "web", "10.99.0.2", "--json", check=False).stdout)
    assert (told["talk"], told["ends"][1]["name"]) == (True, "db"), told


def test_a_guest_that_answers_no_arp(kernels: Kernels) -> None:
    running, web, db = kernels
    db.run("ip addr add 10.99.0.2/24 dev eth0; busybox ping -c 1 -W 1 10.99.0.9 || true")
    db.run("ip link set eth0 arp off")
    named(
        running,
        "a guest that answers no ARP",
        again=lambda: web.run("busybox ping -c 3 -W 1 10.99.0.2 || true"),
    )


def test_one_address_at_two_vms(kernels: Kernels) -> None:
    running, web, db = kernels
    db.run("ip addr add 10.99.0.1/24 dev eth0")

    def ask() -> None:
        for room in (web, db):
            room.run("busybox ping -c 1 -W 1 10.99.0.9 || true")

    named(running, "one IP address at two VMs", again=ask)


def test_other_families(kernels: Kernels) -> None:
    running, web, db = kernels
    web.run("ip addr flush dev eth0; echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    web.run("ip addr add fd00::1/64 dev eth0 nodad")
    db.run("ip addr add 10.99.0.2/24 dev eth0")

    def ask() -> None:
        web.run("busybox ping -c 1 -W 1 fd00::2 || true")
        db.run("busybox ping -c 1 -W 1 10.99.0.1 || true")

    named(running, "IPv6 on one side, IPv4 on the other", again=ask)


def test_other_vlans(pair: Pair) -> None:
    running, web, db = pair

    def ask() -> None:
        web.send(_question(1, 2, "8100000a"))
        db.send(_question(2, 1))
        web.drain()
        db.drain()

    named(running, "VLANs that differ", again=ask)


def _question(sender: int, target: int, tag: str = "") -> bytes:
    """Return the ARP request of VM ``sender``, which has 10.99.0.SENDER, for that of ``target``."""
    head = BROADCAST + mac(sender) + bytes.fromhex(f"{tag}08060001080006040001")
    body = mac(sender) + bytes([10, 99, 0, sender]) + bytes(6) + bytes([10, 99, 0, target])
    return (head + body).ljust(64, b"\0")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_paused_vm(switch: StartSwitch, kind: str) -> None:
    running = switch(qemu=kind == "unix", tcp=kind == "tcp")
    web = attach(running, "web")
    db = running.connect(kind)
    (name,) = (port["name"] for port in running.wait_live(2) if port["name"] != "web")
    meet({1: web, 2: db})
    for vm in (web, db):
        vm.drain()
    web.send(build_frame(mac(2), mac(1), 100))
    named(running, "a VM that is paused", {"db": name}, web.drain)  # web reads what comes, and is not paused
    db.drain()
    assert "paused" not in running.command("explain", "web", name, check=False).stdout


def test_a_paused_vm_that_shares_its_memory(switch: StartSwitch) -> None:
    running = switch(vhost=True)
    web = attach(running, "web")
    with contextlib.closing(running.connect("vhost")) as db:
        (name,) = (port["name"] for port in running.wait_live(2) if port["name"] != "web")
        meet({1: web, 2: db})
        named(
            running,
            "a VM with vhost-user that is paused",
            {"db": name},
            lambda: web.send(build_frame(mac(2), mac(1), 100)),
        )


def test_a_vm_at_its_limit(pair: Pair) -> None:
    running, web, db = pair
    running.command("set", "web", "limit-bandwidth=8Mbit/s")
    frame = build_frame(mac(2), mac(1), 1514)

    def fill() -> None:
        while web.offer(frame):
            continue
        db.send(build_frame(mac(1), mac(2), 1514))
        db.drain()
        web.drain()

    named(running, "a VM at its bandwidth limit", again=fill)


def test_the_document_has_the_same_table() -> None:
    row = re.compile(r"^\| ([^|`]+) \| `([^`|]+)` \| ([^|]+) \| ([01]) \|$", re.MULTILINE)
    rows = {
        fault: (command, words, int(status))
        for fault, command, words, status in row.findall(DOCUMENT.read_text())
    }
    assert rows == FAULTS


def test_each_fault_of_the_table_is_made() -> None:
    here = Path(__file__).parent
    text = "".join((here / name).read_text() for name in ("test_faults.py", "test_outside_faults.py"))
    assert [fault for fault in FAULTS if f'"{fault}"' not in text] == []

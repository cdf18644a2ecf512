"""One guest floods the gateway with questions of every kind; another's names and leases are as before."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from gateway.inside.nft import STRAYS
from gateway.lan.frames import Datagram, udp
from tests.helpers.gateway import dhcp_client, dns_client
from tests.helpers.gateway.dhcp_client import DISCOVER
from tests.helpers.gateway.link import Link, dhcp_frame
from tests.helpers.gateway.place import FOUND, GATEWAY, OUTSIDE, Place
from tests.helpers.gateway.processes import process
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest

OURS = bytes.fromhex("5a94efe40cdd")
MALLORY = b"\x52\x54\0\0\0\x0b"
LOOKUPS = 20
ACK = 16
MISSED = 5000
"""Frames of a flood that come while the gateway has no processor."""
SLOW_S = 1.0
"""Longest usual time of an immediate answer on a busy machine; a lost question has none."""


def dns_frame(mac: bytes, source: IPv4Address, name: str, number: int) -> bytes:
    question = dns_client.query(name, 1, ident=number & 0xFFFF)
    return udp(
        mac, Datagram(OURS, source.packed, socket.inet_aton(GATEWAY), 1024 + number % 60_000, 53, question)
    )


def many_macs(number: int) -> bytes:
    return bytes((0x52, 0x54, 1, 0, number >> 8 & 3, number & 255))


FLOODS: dict[str, Callable[[int], bytes]] = {
    "questions": lambda n: dns_frame(MALLORY, IPv4Address("192.168.127.66"), "gateway", n),
    "names that nobody answers": lambda n: dns_frame(
        MALLORY, IPv4Address("192.168.127.66"), f"x{n}.hole.example", n
    ),
    "addresses that answer no ARP": lambda n: dns_frame(
        MALLORY, IPv4Address("192.168.127.3") + n % 250, "gateway", n
    ),
    "questions of many MAC addresses": lambda n: dns_frame(
        many_macs(n), IPv4Address("192.168.127.3") + n % 250, "gateway", n
    ),
    "leases": lambda n: dhcp_frame(MALLORY, dhcp_client.request(DISCOVER, MALLORY, xid=n)),
    "leases for others": lambda n: dhcp_frame(MALLORY, dhcp_client.request(DISCOVER, many_macs(n), xid=n)),
    "leases of many MAC addresses": lambda n: dhcp_frame(
        many_macs(n), dhcp_client.request(DISCOVER, many_macs(n), xid=n)
    ),
}


@contextlib.contextmanager
def flood(here: Place, make: Callable[[int], bytes]) -> Iterator[None]:
    """Send frames as fast as the switch takes them, and read nothing but what would stop that."""
    link = Link(here.switch.qemu)
    link.sock.settimeout(None)  # with a time, recv would wait for it
    stop = threading.Event()

    def send() -> None:
        for first in itertools.count(0, 64):
            if stop.is_set():
                return
            link.send(*[make(first + number) for number in range(64)])
            with contextlib.suppress(BlockingIOError):
                while link.sock.recv(1 << 20, socket.MSG_DONTWAIT):
                    continue

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        link.close()


def ask(sock: socket.socket, name: str, ident: int) -> tuple[list[str], float]:
    """Ask a question and return the addresses, and how long it took. Raises TimeoutError."""
    began = time.monotonic()
    sock.send(dns_client.query(name, 1, ident=ident))
    while True:
        answer = dns_client.read(sock.recv(4096))
        if answer.ident == ident:
            return answer.values, time.monotonic() - began


def look_up(here: Place) -> list[float]:
    """Look names up, ours and others'; all are answered. Return how long each took."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with here.guest.inside(make) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((GATEWAY, 53))
        times = []
        for number in range(LOOKUPS):
            name, wanted = (f"n{number}.example", FOUND) if number % 2 else ("gateway", GATEWAY)
            values, took = ask(sock, name, number)
            assert values == [wanted]
            times.append(took)
        return sorted(times)


def reply(name: str, data: bytes, by_tcp: bool) -> bytes | None:
    return None if name.endswith("hole.example") else dns_client.answer(data, FOUND)


def test_a_guest_that_floods_disturbs_no_other(place: Callable[..., Place]) -> None:
    here = place("--resolver", f"{OUTSIDE}:5300")
    made = here.internet.inside(lambda: dns_client.Resolver(reply, OUTSIDE, 5300))
    with contextlib.closing(made), contextlib.ExitStack() as stack:
        quiet = look_up(here)
        print(f"{'quiet':34} median {1e3 * quiet[LOOKUPS // 2]:6.1f} ms, longest {1e3 * quiet[-1]:6.1f} ms")
        for number, (what, make) in enumerate(FLOODS.items()):
            with flood(here, make):
                times = look_up(here)
                newcomer = Link(here.switch.qemu)
                stack.callback(newcomer.close)
                began = time.monotonic()
                address = newcomer.lease(bytes((0x52, 0x54, 2, 0, 0, number)))
                took = time.monotonic() - began
                wait_for(lambda: over_rate(here) > 0, f"the worker to drop {what}")
            print(
                f"{what:34} median {1e3 * times[LOOKUPS // 2]:6.1f} ms, longest {1e3 * times[-1]:6.1f} ms, "
                f"a lease in {1e3 * took:.0f} ms"
            )
            assert times[LOOKUPS // 2] < SLOW_S, what
            assert address.startswith("192.168.127."), what
        assert refused(here)["dhcp_spoofed"] > 0
        assert refused(here)["dhcp_no_address"] > 0


def over_rate(here: Place) -> int:
    """Return how many questions of the present VMs their workers have dropped."""
    return sum(int(port["drops"]["over_rate"]) for port in here.switch.json("stats")["ports"])


def refused(here: Place) -> dict[str, int]:
    """Return the gateway's own refusals."""
    return dict(here.switch.json("stats")["gateway"]["refused"])


def test_a_client_that_waits_for_its_answers_is_slowed_down_and_loses_nothing(
    place: Callable[..., Place],
) -> None:
    here = place()
    with here.guest.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((GATEWAY, 53))
        for number in range(1500):  # above the burst of the gateway, and of the worker
            assert ask(sock, "gateway", number)[0] == [GATEWAY]
    with contextlib.closing(Link(here.switch.qemu)) as client:
        for _ in range(300):
            assert client.lease(MALLORY).startswith("192.168.127.")
    assert over_rate(here) == 0


def test_the_gateway_limits_a_port_without_a_guard_by_itself(place: Callable[..., Place]) -> None:
    here = place("--resolver", f"{OUTSIDE}:5300")
    made = here.internet.inside(lambda: dns_client.Resolver(reply, OUTSIDE, 5300))
    with contextlib.closing(made), flood(here, FLOODS["questions"]):
        here.switch.wait_live(3)
        here.switch.command("set", here.switch.ports()[-1]["name"], "guard=false")
        wait_for(lambda: refused(here)["over_rate"] > 0, "the gateway to refuse questions")
        wait_for(lambda: refused(here)["flooded"] > 0, "the kernel's drops to be counted")
        assert look_up(here)[LOOKUPS // 2] < SLOW_S


def test_segments_of_no_connection_that_the_kernel_drops_are_counted(place: Callable[..., Place]) -> None:
    here = place()
    with here.guest.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)) as raw:
        for number in range(2 * STRAYS[1]):
            raw.sendto(struct.pack(">HHIIBBHHH", 1024 + number, 80, 1, 1, 0x50, ACK, 0, 0, 0), (OUTSIDE, 0))
    wait_for(lambda: refused(here)["flooded"] > 0, "the kernel's drops to be counted")
    assert refused(here)["over_rate"] == 0, "no question was asked"


def received(here: Place, name: str) -> int:
    """Return how many frames have come from a port's VM."""
    ports = here.switch.json("stats")["ports"]
    return next(int(port["rx"]["frames"]) for port in ports if port["name"] == name)


@pytest.mark.parametrize("what", ["names that nobody answers", "leases"])
def test_a_flood_while_the_gateway_has_no_processor_costs_no_other_its_lease(
    place: Callable[..., Place], what: str
) -> None:
    here = place("--resolver", f"{OUTSIDE}:5300")
    gateway = process(here.switch, "gateway")
    with flood(here, FLOODS[what]), contextlib.closing(Link(here.switch.qemu)) as newcomer:
        here.switch.wait_live(4)
        mallory, other = (port["name"] for port in here.switch.ports()[-2:])
        os.kill(gateway, signal.SIGSTOP)
        try:
            before = received(here, mallory)
            wait_for(lambda: received(here, mallory) > before + MISSED, "the flood to go on")
            mac = bytes((0x52, 0x54, 3, 0, 0, 1))
            newcomer.send(dhcp_frame(mac, dhcp_client.request(DISCOVER, mac)))
            wait_for(lambda: received(here, other) > 0, "the question to be read")
            before = received(here, mallory)
            wait_for(lambda: received(here, mallory) > before, "the worker of the gateway to have its turn")
        finally:
            os.kill(gateway, signal.SIGCONT)
        assert newcomer.lease(mac).startswith("192.168.127.")

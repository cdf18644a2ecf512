"""A guest's source address is a claim: what it sends under an address that is not its own goes nowhere."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv6Address

import pytest

from forwarder.names import GATEWAY_MAC, parse_mac
from gateway.lan.frames import Datagram, icmpv6, udp
from gateway.settings import read
from tests.helpers.gateway import dhcp_client
from tests.helpers.gateway.link import Link, dhcp_frame
from tests.helpers.gateway.place import GATEWAY, HOST, MAC, OUTSIDE, NewNamespace, Place
from tests.helpers.gateway.processes import process
from tests.helpers.guests.fake_vm import PacketVM
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.waiting import wait_for

pytestmark = pytest.mark.guest
MANY = 1000
OWN, BURST, RATE = 4, 32, 2
"""As in the core's sources.h."""
ECHO = b"\x80" + bytes(7)
FORGED_NUMBER = re.compile(r"\S+::1[0-9a-f]{3} |192\.168\.127\.([3-9]\d|1\d\d|2\d\d) ")
"""A neighbour with a made-up address."""
FORGED = ("203.0.113.2", OUTSIDE, HOST, GATEWAY, "127.0.0.1", "192.168.127.255")


def ipv4(source: str, destination: str, source_port: int, port: int, data: bytes) -> bytes:
    """A UDP datagram in an IPv4 packet, without a UDP checksum."""
    udp = struct.pack(">HHHH", source_port, port, 8 + len(data), 0) + data
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:] + udp


def echo_service(here: Place, room: Namespace, stack: contextlib.ExitStack, address: str) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 0))
        sock.settimeout(0)
        return sock

    return stack.enter_context(room.inside(make))


def heard(sock: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    """Take all that has come, and send each datagram back to where it came from, as an echo service does."""
    got = []
    with contextlib.suppress(BlockingIOError):
        while len(got) < 1000:
            got.append(sock.recvfrom(2048))
            sock.sendto(*got[-1])
    return got


def test_datagrams_with_false_sources_go_nowhere_and_start_no_loop(place: Callable[..., Place]) -> None:
    here = place()
    with contextlib.ExitStack() as stack:
        services = [
            echo_service(here, here.internet, stack, OUTSIDE),
            echo_service(here, here.host, stack, "127.0.0.1"),
        ]
        outside, loopback = (sock.getsockname()[1] for sock in services)
        vm = here.guest.packet_vm()
        to = bytes.fromhex(
            here.guest.run(f"ip neigh show {GATEWAY}").split("lladdr ")[1][:17].replace(":", "")
        )
        mac = parse_mac(MAC)

        def send(source: str, destination: str, source_port: int, port: int, data: bytes) -> None:
            vm.send(to + mac + b"\x08\x00" + ipv4(source, destination, source_port, port, data))

        for source in FORGED:
            # The echo services of the outside and of the host's loopback, played against each other.
            send(source, OUTSIDE, loopback, outside, b"forged")
            send(source, HOST, outside, loopback, b"forged")
        send("192.168.127.2", OUTSIDE, 7777, outside, b"honest")
        send("192.168.127.2", HOST, 7777, loopback, b"honest")
        for sock in services:
            got: list[tuple[bytes, tuple[str, int]]] = []
            wait_for(lambda sock=sock, got=got: got.extend(heard(sock)) or got, "the honest datagram")
            assert [data for data, _ in got] == [b"honest"]
        assert not any(heard(sock) for sock in services)


def arp_question(mac: bytes, source: str, target: str = GATEWAY) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + mac + socket.inet_aton(source)
    return b"\xff" * 6 + mac + b"\x08\x06" + body + bytes(6) + socket.inet_aton(target)


def unheard(here: Place) -> int:
    """Return how many frames the gateway's port has not passed on."""
    return sum(int(port["drops"]["sources"]) for port in here.switch.json("stats")["ports"])


def is_answered(room: Namespace, to: str, source: str) -> bool:
    return "bytes from" in room.run(f"busybox ping -I {source} -c 1 -W 1 {to} || true")


def pretend(vm: PacketVM, macs: int) -> None:
    """Send, from MANY addresses, each kind of frame that makes its sender a neighbour of the gateway."""
    prefix, host6 = read({}).policy.prefix, read({}).policy.host6.packed
    own = prefix[1].packed
    for number in range(MANY):
        mac = parse_mac(f"52:54:00:01:{number % macs >> 8:02x}:{number % macs & 255:02x}")
        source = prefix[0x1000 + number].packed
        question = b"\x87" + bytes(7) + own + b"\x01\x01" + mac
        vm.send(icmpv6(mac, b"\x33\x33\xff\0\0\1", source, IPv6Address("ff02::1:ff00:1").packed, question))
        vm.send(icmpv6(mac, GATEWAY_MAC, source, own, ECHO))
        vm.send(icmpv6(mac, b"\x33\x33\0\0\0\1", source, IPv6Address("ff02::1").packed, ECHO))
        vm.send(icmpv6(mac, GATEWAY_MAC, IPv6Address("fe80::").packed[:8] + source[8:], own, ECHO))
        vm.send(udp(mac, Datagram(GATEWAY_MAC, source, host6, 1234, 9, b"")))
        vm.send(arp_question(mac, f"192.168.127.{number % 200 + 30}"))
        vm.send(
            GATEWAY_MAC + mac + b"\x08\x00" + ipv4(f"192.168.127.{number % 200 + 30}", GATEWAY, 9, 9, b"")
        )


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


@pytest.mark.parametrize("macs", [1, 30, 1000])
def test_made_up_addresses_of_one_guest_become_few_neighbours(
    place: Callable[..., Place], namespace: NewNamespace, stack: contextlib.ExitStack, macs: int
) -> None:
    here = place()
    vm = here.guest.packet_vm()
    prefix, inside = read({}).policy.prefix, process(here.switch, "gateway.inside")
    began = time.monotonic()
    pretend(vm, macs)
    other = namespace("other")
    stack.callback(Pump(other.open_tap("52:54:00:00:77:01"), f"unix://{here.switch.qemu}").close)
    for added in (f"{prefix[0x77]}/64", "192.168.127.20/24"):
        other.run(f"ip address add {added} dev eth0 nodad")
    for target, address in ((f"{prefix[1]}", f"{prefix[0x77]}"), (GATEWAY, "192.168.127.20")):
        wait_for(partial(is_answered, other, target, address), f"an answer to {address}")
    neighbours = here.host.run(f"nsenter -t {inside} -n ip neighbour show nud all").splitlines()
    forged = [line for line in neighbours if FORGED_NUMBER.match(line)]
    assert OWN <= len(forged) <= OWN + BURST + RATE * (time.monotonic() - began) + 4

    def are_counted() -> bool:
        if unheard(here) > 5 * MANY:
            return True
        # The guest's kernel drops what a busy machine does not read in time.
        pretend(vm, macs)
        return False

    wait_for(are_counted, "the others to be counted")
    assert (
        "(gateway): drops a frame from one more IP address than its sender's port may use"
        in here.switch.log()
    )
    assert "counts further ones as sources" in here.switch.log()


def test_a_question_in_another_vlan_gets_no_answer(place: Callable[..., Place]) -> None:
    here = place()
    mac = parse_mac("52:54:00:00:00:0b")
    with contextlib.closing(Link(here.switch.qemu)) as link:
        for tag, expected in ((5, False), (0xE005, False), (0xE000, True)):
            frame = dhcp_frame(mac, dhcp_client.request(dhcp_client.DISCOVER, mac))
            link.send(frame[:12] + struct.pack(">HH", 0x8100, tag) + frame[12:])
            if expected:
                assert link.answer().kind == dhcp_client.OFFER
            else:
                with pytest.raises(TimeoutError):
                    link.answer(1.0)


def test_arp_that_claims_an_address_outside_of_the_lan_is_not_believed(place: Callable[..., Place]) -> None:
    here = place()
    vm = here.guest.packet_vm()
    mac = parse_mac(MAC)

    def ask(source: str) -> None:
        vm.send(arp_question(mac, source))

    def answered(frame: bytes) -> bool:
        return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\x00\x02"

    ask("192.168.127.9")
    vm.receive_matching(answered)
    for source in ("203.0.113.2", "192.168.127.255", GATEWAY):
        ask(source)
    ask("192.168.127.10")
    assert socket.inet_ntoa(vm.receive_matching(answered)[38:42]) == "192.168.127.10"

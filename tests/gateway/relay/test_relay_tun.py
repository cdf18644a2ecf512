"""Datagrams and pings of guests through a real TUN device, out of one namespace into another.

The test's thread has entered a network namespace of its own, which is "the host" and has "the Internet" on
its loopback; the LAN is a second namespace with nothing in it but the TUN device. No route leads elsewhere.
"""

import contextlib
import ctypes
import functools
import itertools
import os
import socket
import struct
import subprocess
import threading
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from gateway.relay.policy import OutboundPolicy
from gateway.relay.tun import open_tun
from tests.gateway.relay.test_relay_udp import received
from tests.helpers.gateway_world import KINDS, World
from tests.helpers.guests import requirements
from tests.helpers.guests.netns import Namespace

CLONE_NEWNET = 0x40000000
GUEST, GUEST6 = "192.168.127.2", "fd12:3456:789a::2"
SERVER, SERVER6 = "203.0.113.7", "2001:db8::7"
POLICY = OutboundPolicy(
    subnet=IPv4Network("192.168.127.0/24"),
    prefix=IPv6Network("fd12:3456:789a::/64"),
    gateway4=IPv4Address("192.168.127.1"),
    host4=IPv4Address("192.168.127.254"),
    host6=IPv6Address("fd12:3456:789a::fe"),
    deny=(IPv4Network("198.51.100.0/24"),),
)
REQUIRED = ("root", "tun", "ip")


def in_a_namespace(test):
    """Run ``test`` in a thread that is in a new network namespace, with its loopback up."""

    @functools.wraps(test)
    def run():
        requirements.require(REQUIRED)
        outcome = []

        def thread():
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.unshare(CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "cannot make a network namespace")
                ip("link set lo up", f"address add {SERVER}/32 dev lo", f"address add {SERVER6}/128 dev lo")
                test()
            except BaseException as error:
                outcome.append(error)

        worker = threading.Thread(target=thread)
        worker.start()
        worker.join()
        if outcome:
            raise outcome[0]

    return run


def ip(*commands):
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, timeout=20)


class Lan:
    """A relay, and a namespace whose way out is the relay's TUN device."""

    def __init__(self, stack, policy=POLICY):
        self.namespace = stack.enter_context(contextlib.closing(Namespace("lan")))
        self.world = stack.enter_context(contextlib.closing(World(policy)))
        self.world.relay.attach_tun(self.namespace.inside(lambda: open_tun("out0")))
        self.stack = stack
        self.namespace.run(
            f"ip address add {GUEST}/32 dev lo; ip address add {GUEST6}/128 dev lo nodad;"
            "ip link set out0 mtu 65520 up;"
            f"ip route add default dev out0 src {GUEST}; ip -6 route add default dev out0 src {GUEST6}"
        )

    def inside(self, address, *arguments):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def make():
            sock = socket.socket(family, *arguments)
            sock.bind((address, 0))
            sock.setblocking(False)
            return sock

        return self.stack.enter_context(self.namespace.inside(make))

    def outside(self, address):
        sock = self.stack.enter_context(
            socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        )
        sock.bind((address, 0))
        sock.setblocking(False)
        return sock


@pytest.mark.guest
@in_a_namespace
def test_datagrams_go_out_and_their_answers_come_back_from_where_they_were_sent_to():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        for guest_address, address in ((GUEST, SERVER), (GUEST6, SERVER6)):
            guest, server = lan.inside(guest_address, socket.SOCK_DGRAM), lan.outside(address)
            for size in (0, 1, 1472, 20_001, 65_000):
                data = os.urandom(size)
                guest.sendto(data, server.getsockname()[:2])
                got, seen_as = received(lan.world, server)
                assert got == data
                server.sendto(data[::-1], seen_as)
                got, peer = received(lan.world, guest)
                assert (got, peer[:2]) == (data[::-1], server.getsockname()[:2])
        assert lan.world.count("flows") == 2


@pytest.mark.guest
@in_a_namespace
def test_one_flow_reaches_many_places_from_one_port_and_hears_nobody_else():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest = lan.inside(GUEST, socket.SOCK_DGRAM)
        one, other, stranger = lan.outside(SERVER), lan.outside(SERVER), lan.outside("127.0.0.1")
        seen = []
        for server in (one, other):
            guest.sendto(b"hello", server.getsockname())
            seen.append(received(lan.world, server)[1])
        assert seen[0] == seen[1]
        stranger.sendto(b"let me in", ("127.0.0.1", seen[0][1]))
        lan.world.until(lambda: lan.world.count("unasked") == 1, "the stranger's datagram")
        other.sendto(b"welcome", seen[1])
        assert received(lan.world, guest) == (b"welcome", other.getsockname())


@pytest.mark.guest
@in_a_namespace
def test_the_host_alias_answers_as_itself_unless_it_is_switched_off():
    for policy, reached in ((POLICY, True), (POLICY._replace(host_access=False), False)):
        with contextlib.ExitStack() as stack:
            lan = Lan(stack, policy)
            guest, server = lan.inside(GUEST, socket.SOCK_DGRAM), lan.outside("127.0.0.1")
            port = server.getsockname()[1]
            guest.sendto(b"hello", (str(POLICY.host4), port))
            if reached:
                server.sendto(b"welcome", received(lan.world, server)[1])
                assert received(lan.world, guest) == (b"welcome", (str(POLICY.host4), port))
            else:
                lan.world.until(lambda lan=lan: lan.world.count("no_host_access") == 1, "the refusal")
                guest.sendto(b"hello", (SERVER, port))  # the host again, under another name
                lan.world.until(lambda lan=lan: lan.world.count("no_host_access") == 2, "the refusal")


@pytest.mark.guest
@in_a_namespace
def test_denied_and_impossible_places_are_counted_and_nothing_is_kept():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest = lan.inside(GUEST, socket.SOCK_DGRAM)
        guest.sendto(b"", ("198.51.100.1", 53))
        guest.sendto(b"", ("169.254.169.254", 80))
        guest.sendto(b"", ("192.0.2.1", 53))  # allowed, but the host has no route
        for name in ("denied", "metadata", "datagrams_dropped"):
            lan.world.until(lambda name=name: lan.world.count(name) == 1, name)
        assert lan.world.count("flows") == 1


@pytest.mark.guest
@in_a_namespace
def test_pings_are_answered_where_the_host_allows_ping_sockets():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        allowed = Path("/proc/sys/net/ipv4/ping_group_range")  # of this thread's namespace
        guest = stack.enter_context(
            lan.namespace.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        )
        guest.setblocking(False)
        guest.bind((GUEST, 0))
        allowed.write_text("1 0")
        guest.sendto(echo(7, 1, b"ping"), (SERVER, 0))
        lan.world.until(lambda: lan.world.count("no_ping_socket") == 1, "the refusal")
        allowed.write_text("0 2147483647")
        for ident, sequence in itertools.product((7, 8), (1, 2)):
            guest.sendto(echo(ident, sequence, b"ping"), (SERVER, 0))
            packet, peer = received(lan.world, guest)
            assert peer[0] == SERVER
            kind, _, _, *numbers = struct.unpack_from(">BBHHH", packet, 20)
            assert (kind, numbers, packet[28:]) == (0, [ident, sequence], b"ping")
        assert lan.world.count("flows") == 2


def echo(ident, sequence, payload):
    data = struct.pack(">BBHHH", 8, 0, 0, ident, sequence) + payload
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return data[:2] + struct.pack(">H", ~total & 0xFFFF) + data[4:]


@pytest.mark.guest
@in_a_namespace
def test_sockets_made_in_the_namespace_reach_guests_from_outside():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        lan.world.relay._make = lambda kind, deliver: deliver(
            lan.namespace.inside(lambda: socket.socket(socket.AF_INET, KINDS[kind]))
        )
        web = stack.enter_context(lan.namespace.inside(lambda: socket.create_server((GUEST, 0))))
        forward = lan.world.forward(web)
        with socket.create_connection((str(forward.host), forward.port)) as client:
            lan.world.until(lambda: lan.world.count("joined") == 1, "the connection")
            accepted = stack.enter_context(web.accept()[0])
            client.send(b"hello")
            lan.world.turn(1.0)
            assert accepted.recv(5) == b"hello"
        service = lan.inside(GUEST, socket.SOCK_DGRAM)
        forward = lan.world.forward(service, "udp")
        asker = lan.outside("127.0.0.1")
        asker.sendto(b"question", (str(forward.host), forward.port))
        service.sendto(b"answer", received(lan.world, service)[1])
        assert received(lan.world, asker)[0] == b"answer"

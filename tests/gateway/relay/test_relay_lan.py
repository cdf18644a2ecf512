"""Datagrams and pings of guests through the gateway's own namespace, and what comes back."""

import contextlib
import errno
import itertools
import os
import socket
import struct
import subprocess
from ipaddress import ip_address
from unittest import mock

import pytest

from forwarder.names import parse_mac
from gateway.lan.frames import Datagram, udp
from gateway.relay import nat
from tests.helpers.gateway.lan import GROUP_RANGE, SERVER, SERVER6, Lan, address, echo, in_a_namespace, ip
from tests.helpers.gateway.world import received

pytestmark = pytest.mark.guest
SIZES = (0, 1, 7, 1472, 1473, 1500, 2000, 2961, 9000, 20_001, 65_000)


@in_a_namespace
def test_datagrams_of_every_size_go_out_and_their_answers_come_back():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        alias4, alias6 = str(lan.policy.host4), str(lan.policy.host6)
        ways = [(4, SERVER, SERVER), (6, SERVER6, SERVER6), (4, "127.0.0.1", alias4), (6, "::1", alias6)]
        for version, at, asked in ways:
            guest, server = lan.inside(room, address(lan, 1, version)), lan.outside(at)
            port = server.getsockname()[1]
            for size in (*SIZES, 65_507 if version == 4 else 65_527):
                data = os.urandom(size)
                guest.sendto(data, (asked, port))
                got, seen_as = received(lan.world, server)
                assert got == data
                server.sendto(data[::-1], seen_as)
                got, peer = received(lan.world, guest)
                assert (got, peer[:2]) == (data[::-1], (asked, port))
        assert lan.world.count("flows") == len(ways)


@in_a_namespace
def test_one_flow_reaches_many_places_from_one_port_and_hears_no_others():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest = lan.inside(lan.guest(), address(lan, 1))
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


@in_a_namespace
def test_a_peer_that_is_asked_again_is_heard_though_many_others_are_asked():
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(nat, "MOST_PEERS", 2)
        lan = Lan(stack)
        addresses = [SERVER, "203.0.113.8", "203.0.113.9"]
        ip(*(f"address add {each}/32 dev lo" for each in addresses[1:]))
        guest = lan.inside(lan.guest(), address(lan, 1))
        first, second, third = (lan.outside(each) for each in addresses)
        for server in (first, second, first, third):
            guest.sendto(b"hello", server.getsockname())
            peer = received(lan.world, server)[1]
        first.sendto(b"welcome", peer)
        assert received(lan.world, guest) == (b"welcome", first.getsockname())


@in_a_namespace
def test_a_refusal_is_answered_counted_and_logged_once_a_second():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack, deny=["198.51.100.0/24"])
        guest = lan.inside(lan.guest(), address(lan, 1))
        refused = {"198.51.100.1": "denied", "100.100.100.200": "metadata", "169.254.1.1": "unroutable"}
        for place, word in refused.items():
            for number in (1, 2):
                guest.sendto(b"", (place, 53))
                lan.world.until(lambda w=word, n=number: lan.world.count(w) == n, word)
            assert len([line for line in lan.world.logged if place in line]) == 1
            assert "port 1 (52:54:00:00:00:01)" in lan.world.logged[-1]
        guest.sendto(b"", ("192.0.2.1", 53))  # allowed, but the host has no route
        lan.world.until(lambda: lan.world.count("errors_passed") == 7, "the error")
        assert lan.world.count("flows") == 1


@in_a_namespace
def test_the_host_alias_answers_as_itself_unless_it_is_switched_off():
    for options, reached in (({}, True), ({"host-access": False}, False)):
        with contextlib.ExitStack() as stack:
            lan = Lan(stack, **options)
            guest, server = lan.inside(lan.guest(), address(lan, 1)), lan.outside("127.0.0.1")
            port = server.getsockname()[1]
            guest.sendto(b"hello", (str(lan.policy.host4), port))
            if reached:
                server.sendto(b"welcome", received(lan.world, server)[1])
                assert received(lan.world, guest) == (b"welcome", (str(lan.policy.host4), port))
            else:
                lan.world.until(lambda lan=lan: lan.world.count("no_host_access") == 1, "the refusal")
                guest.sendto(b"hello", (SERVER, port))  # the host again, under another name
                lan.world.until(lambda lan=lan: lan.world.count("no_host_access") == 2, "the refusal")


@in_a_namespace
def test_pings_of_every_size_are_answered_where_the_host_allows_ping_sockets():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest = lan.inside(lan.guest(), address(lan, 1), socket.SOCK_RAW, socket.IPPROTO_ICMP)
        GROUP_RANGE.write_text("1 0")
        guest.sendto(echo(7, 1, b"ping"), (SERVER, 0))
        lan.world.until(lambda: lan.world.count("no_ping_socket") == 1, "the refusal")
        assert all("ping_group_range" in line for line in lan.world.logged)
        assert len(lan.world.logged) == 2  # at the start, and at the first ping
        GROUP_RANGE.write_text("0 2147483647")
        for ident, sequence in itertools.product((7, 8), (1, 2)):
            for size in (0, 56, 1473, 2000, 9000, 65_507):
                data = os.urandom(size)
                guest.sendto(echo(ident, sequence, data), (SERVER, 0))
                packet, peer = received(lan.world, guest)
                assert peer[0] == SERVER
                kind, _, _, *numbers = struct.unpack_from(">BBHHH", packet, 20)
                assert (kind, numbers, packet[28:]) == (0, [ident, sequence], data)
        assert lan.world.count("flows") == lan.world.count("pings") == 2


@in_a_namespace
def test_a_datagram_to_a_closed_port_gets_an_error():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        aliases = (4, str(lan.policy.host4)), (6, str(lan.policy.host6))
        for version, asked in ((4, SERVER), (6, SERVER6), *aliases):
            guest = lan.inside(room, address(lan, 1, version))
            guest.connect((asked, 9))
            for _ in range(2):
                guest.send(b"anybody?")
                lan.world.until(lambda guest=guest: is_refused(guest), f"the refusal of {asked}")


@in_a_namespace
def test_a_flood_to_a_closed_port_hears_a_few_errors_and_its_flow_goes_on():
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(nat, "ERRORS", (1e-6, 5, 0)))
        lan = Lan(stack)
        room = lan.guest()
        for version, asked in ((4, SERVER), (6, SERVER6)):
            guest, server = lan.inside(room, address(lan, 1, version)), lan.outside(asked)
            for number in range(40):
                with contextlib.suppress(ConnectionRefusedError):
                    guest.sendto(b"%d" % number, (asked, 9))
            lan.world.until(lambda: lan.world.count("errors_passed") == 5, "the first errors")
            with contextlib.suppress(ConnectionRefusedError):
                guest.sendto(b"question", server.getsockname())
            seen_as = received(lan.world, server)[1]
            server.sendto(b"answer", seen_as)
            lan.world.until(lambda guest=guest: readable(guest) == b"answer", "the answer")
            assert lan.world.count("errors_passed") == 5


def readable(sock):
    """Return what waits at a socket, if anything; errors are taken and forgotten."""
    with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
        return sock.recv(100)
    return None


def is_refused(sock):
    return error_of(sock) == errno.ECONNREFUSED


def error_of(sock):
    """Return the error that waits at a socket; 0: none."""
    try:
        sock.recv(1)
    except BlockingIOError:
        return 0
    except OSError as error:
        return error.errno
    raise AssertionError("somebody answered")


@in_a_namespace
def test_what_the_hosts_own_packet_filter_drops_gets_an_error():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        rule = "table inet own { chain out { type filter hook output priority 0; udp dport 99 drop; }; }"
        subprocess.run(["nft", rule], check=True, timeout=20)
        for version, asked, expected in ((4, SERVER, errno.EHOSTUNREACH), (6, SERVER6, errno.EACCES)):
            guest = lan.inside(room, address(lan, 1, version))
            guest.connect((asked, 99))
            guest.send(b"may I?")
            lan.world.until(lambda guest=guest, error=expected: error_of(guest) == error, "the error")


@in_a_namespace
def test_frames_of_another_vlan_are_not_carried_and_those_with_a_priority_alone_are():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        server = lan.outside(SERVER)
        lan.inside(room, address(lan, 1)).sendto(b"untagged", server.getsockname())  # and ARP is settled
        assert received(lan.world, server)[0] == b"untagged"
        gateway = room.run(f"ip neigh show {lan.policy.gateway4}").split("lladdr ")[1].split()[0]
        ends = (ip_address(address(lan, 1)).packed, ip_address(SERVER).packed)
        vm = room.packet_vm()
        for tag, said in ((5, b"VLAN 5"), (0xE000, b"priority 7"), (0xE005, b"both"), (0, b"no priority")):
            datagram = Datagram(parse_mac(gateway), *ends, 1234, server.getsockname()[1], said)
            frame = udp(parse_mac("52:54:00:00:00:01"), datagram)
            vm.send(frame[:12] + struct.pack(">HH", 0x8100, tag) + frame[12:])
        assert [received(lan.world, server)[0] for _ in range(2)] == [b"priority 7", b"no priority"]
        with pytest.raises(BlockingIOError):
            server.recv(1)


@in_a_namespace
def test_a_guest_that_does_not_want_an_answer_ends_its_flow():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest, server = lan.inside(lan.guest(), address(lan, 1)), lan.outside(SERVER)
        guest.sendto(b"question", server.getsockname())
        _, seen_as = received(lan.world, server)
        guest.close()
        server.connect(seen_as)
        server.send(b"answer")
        lan.world.until(lambda: lan.world.count("flows") == 0, "the end of the flow")
        server.send(b"once more")
        lan.world.until(lambda: is_refused(server), "the refusal")


def with_a_flow(stack):
    """Return a LAN, a guest's socket, the server that it talks to, its address there, and another guest."""
    lan = Lan(stack)
    honest, other = lan.guest(), lan.guest()
    sock, server = lan.inside(honest, address(lan, 1)), lan.outside(SERVER)
    sock.sendto(b"before", server.getsockname())
    return lan, sock, server, received(lan.world, server)[1], other


@in_a_namespace
def test_a_guest_under_anothers_address_has_flows_of_its_own():
    with contextlib.ExitStack() as stack:
        lan, sock, server, seen_as, liar = with_a_flow(stack)
        port = sock.getsockname()[1]
        liar.run(f"ip address add {address(lan, 1)}/32 dev lo")
        forged = stack.enter_context(liar.inside(lambda: bound(address(lan, 1), port)))
        forged.sendto(b"forged", server.getsockname())
        got, other = received(lan.world, server)
        assert got == b"forged"
        assert other != seen_as
        flows = lan.world.relay._flows._flows
        assert {len(flows.of(port)) for port in lan.ports.values()} == {1}
        assert lan.world.count("flows") == 2


def bound(at, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((at, port))
    return sock


@in_a_namespace
def test_a_guest_that_scans_under_many_addresses_pushes_out_flows_of_its_own():
    with contextlib.ExitStack() as stack:
        lan, sock, server, seen_as, scanner = with_a_flow(stack)
        lan.world.relay._flows._places.most = 60
        scanner.run("for i in $(seq 50 80); do ip address add 192.168.127.$i/32 dev lo; done")
        for number in range(50, 80):
            for _ in range(5):
                scan = lan.inside(scanner, f"192.168.127.{number}")
                scan.sendto(b"scan", server.getsockname())
                received(lan.world, server)
        assert lan.world.count("flows_pushed_out") > 90
        assert lan.world.count("flows") <= 60
        sock.sendto(b"after", server.getsockname())
        assert received(lan.world, server) == (b"after", seen_as)


@in_a_namespace
def test_forged_sources_are_dropped_counted_and_named():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        server = lan.outside(SERVER)
        lan.inside(room, address(lan, 1)).sendto(b"honest", server.getsockname())  # and ARP is settled
        received(lan.world, server)
        for number, forged in enumerate(("203.0.113.2", "10.1.1.1", str(lan.policy.host4)), 1):
            room.run(f"ip address add {forged}/32 dev lo")
            sock = lan.inside(room, forged)
            sock.sendto(b"forged", server.getsockname())
            lan.world.until(lambda n=number: lan.world.count("spoofed") == n, f"{forged} to be counted")
        assert "port 1" in lan.world.logged[1]
        assert "203.0.113.2" in lan.world.logged[1]
        with pytest.raises(BlockingIOError):
            server.recv(1)
        assert lan.world.count("flows") == 1

"""Fragments: long datagrams of forwards, and fragments that are left at the gateway itself."""

import contextlib
import os
import socket
import struct
import sys
from ipaddress import ip_address

import pytest

from gateway.relay import frames
from tests.helpers.gateway.lan import Lan, address, echo, in_a_namespace
from tests.helpers.gateway.world import received

pytestmark = pytest.mark.guest


@in_a_namespace
def test_fragments_that_one_guest_leaves_at_the_gateway_concern_no_other():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        mallory, room = lan.guest(), lan.guest()
        for version, gateway in ((4, str(lan.policy.gateway4)), (6, str(lan.settings.gateway6))):
            kind = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
            forger = lan.inside(mallory, address(lan, 1, version), socket.SOCK_RAW, socket.IPPROTO_RAW)
            for number in range(4000):  # 6 MB: the kernel's queue holds 4
                with contextlib.suppress(BlockingIOError):
                    forger.sendto(first_fragment(lan, version, gateway, number), (gateway, 0))
                lan.world.turn(0)
            guest = lan.inside(room, address(lan, 2, version), socket.SOCK_RAW, kind)
            data = os.urandom(9000)
            request, reply = (8, 0) if version == 4 else (128, 129)
            guest.sendto(echo(7, 1, data, request), (gateway, 0))
            packet = received(lan.world, guest)[0][20 if version == 4 else 0 :]
            while packet[0] != reply:  # neighbours of IPv6 are asked for
                packet = received(lan.world, guest)[0]
            assert packet[8:] == data
        assert lan.world.count("fragments_dropped") > 0


def first_fragment(lan, version, gateway, number):
    """Return a packet with the first fragment of a datagram that never becomes whole."""
    ends = ip_address(address(lan, 1, version)).packed + ip_address(gateway).packed
    if version == 4:
        return struct.pack(">BBHHHBBH", 0x45, 0, 1468, number, 0x2000, 64, 17, 0) + ends + bytes(1448)
    return (
        struct.pack(">IHBB", 6 << 28, 1448, 44, 64)
        + ends
        + struct.pack(">BBHI", 17, 0, 1, number)
        + bytes(1440)
    )


@in_a_namespace
def test_a_datagram_longer_than_ip_allows_is_dropped_and_the_others_go_on():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        forger = lan.inside(room, address(lan, 1, 4), socket.SOCK_RAW, socket.IPPROTO_RAW)
        refused = "169.254.169.254"
        for packet in too_long(address(lan, 1, 4), refused):
            forger.sendto(packet, (refused, 0))
            lan.world.turn(0)
        lan.world.until(lambda: lan.world.count("fragments_dropped") > 0, "the drop")
        guest = lan.inside(room, address(lan, 1, 4))
        server = lan.outside("127.0.0.1")
        guest.sendto(b"still", (str(lan.policy.host4), server.getsockname()[1]))
        assert received(lan.world, server)[0] == b"still"


@in_a_namespace
def test_a_mistake_of_ours_costs_one_frame_and_no_other_guest_its_way_out():
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as monkeypatch:
        lan = Lan(stack)
        room = lan.guest()
        guest, server = lan.inside(room, address(lan, 1, 4)), lan.outside("127.0.0.1")
        target = (str(lan.policy.host4), server.getsockname()[1])
        failures = []
        monkeypatch.setattr(lan.world.relay._poller, "failed", lambda: failures.append(sys.exc_info()[1]))
        with monkeypatch.context() as patch:
            patch.setattr(frames, "parse", lambda _: 1 / 0)
            guest.sendto(b"lost", target)
            lan.world.until(lambda: failures, "the failure")
        guest.sendto(b"kept", target)
        assert received(lan.world, server)[0] == b"kept"
        assert [type(each) for each in failures] == [ZeroDivisionError]


def too_long(source, destination):
    """Return fragments of a datagram that has 65,535 bytes behind the IP header."""
    ends = ip_address(source).packed + ip_address(destination).packed
    body = struct.pack(">HHHH", 4000, 53, 65_535, 0) + bytes(65_527)
    return [
        struct.pack(
            ">BBHHHBBH",
            *(0x45, 0, 20 + len(body[at : at + 1480]), 7),
            *((0x2000 if at + 1480 < len(body) else 0) | at // 8, 64, 17, 0),
        )
        + ends
        + body[at : at + 1480]
        for at in range(0, len(body), 1480)
    ]


@in_a_namespace
def test_large_datagrams_of_a_guest_reach_a_client_of_a_forward():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        for version in (4, 6):
            guest = lan.inside(room, address(lan, 1, version))
            forward = lan.world.forward(guest, "udp")
            client = lan.outside("127.0.0.1")
            for size in (10, 1473, 9000, 65_507 if version == 4 else 65_527):
                data = os.urandom(min(size, 65_507))
                client.sendto(data, (str(forward.host), forward.port))
                got, peer = received(lan.world, guest)
                assert got == data
                guest.sendto(data[::-1], peer)
                assert received(lan.world, client)[0] == data[::-1]

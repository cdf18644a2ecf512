"""Connections of guests through the gateway's own namespace: a guest hears what the far side has said."""

import contextlib
import errno
import socket
import struct
import time
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from gateway import poller
from gateway.inside.nft import STRAYS
from gateway.relay.handshakes import FAILURES
from gateway.relay.tcp import ANSWERED_S, DIAL_S
from tests.helpers.gateway.lan import (
    SERVER,
    SERVER6,
    SILENT,
    Lan,
    accept,
    add_silent_host,
    address,
    connected,
    dial,
    family,
    in_a_namespace,
    outcome,
)
from tests.helpers.gateway.world import drain, reset

pytestmark = pytest.mark.guest
SYN, RESET, ACK = 2, 4, 16


@in_a_namespace
def test_a_guest_reaches_a_listener_and_both_ways_carry_bytes():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        aliases = ("127.0.0.1", str(lan.policy.host4)), ("::1", str(lan.policy.host6))
        for at, asked in ((SERVER, SERVER), (SERVER6, SERVER6), *aliases):
            listener = lan.outside(at, socket.SOCK_STREAM)
            port = listener.getsockname()[1]
            guest = dial(lan, room, 1, (asked, port))
            assert outcome(lan, guest) == 0
            assert guest.getpeername()[:2] == (asked, port)
            server = stack.enter_context(accept(lan, listener))
            for sender, receiver in ((guest, server), (server, guest)):
                sender.send(b"hello")
                got = bytearray()
                lan.world.until(lambda r=receiver, g=got: drain(r, g) or len(g) == 5, "the bytes")
        assert lan.world.count("joined") == 4


@in_a_namespace
def test_a_guest_sees_the_real_outcome_of_its_connection():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack, deny=["198.51.100.0/24", "2001:db8:bad::/48"])
        room = lan.guest()
        add_silent_host()
        expected = {
            SERVER: errno.ECONNREFUSED,
            SERVER6: errno.ECONNREFUSED,
            str(lan.policy.host4): errno.ECONNREFUSED,
            str(lan.policy.host6): errno.ECONNREFUSED,
            "198.51.100.1": errno.EHOSTUNREACH,
            "2001:db8:bad::1": errno.EACCES,
            "169.254.169.254": errno.EHOSTUNREACH,
            "203.0.114.1": errno.ENETUNREACH,
            "2001:db8:1::1": errno.ENETUNREACH,
        }
        for place, error in expected.items():
            assert (place, outcome(lan, dial(lan, room, 1, (place, 9)))) == (place, error)
        silent = dial(lan, room, 1, (SILENT, 9))
        lan.world.until(lambda: lan.world.count("dials") == 1, "the dial")
        assert silent.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert not connected(silent)
        lan.world.relay.tick(lan.world.relay.deadline() + DIAL_S)
        assert lan.world.count("timed_out") == 1
        assert lan.world.count("dials") == 0
        assert not connected(silent)


@in_a_namespace
def test_a_guest_hears_at_once_that_the_host_has_no_ipv6():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        for interface in ("all", "lo"):
            Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")
        for place in (SERVER6, str(lan.policy.host6)):
            assert outcome(lan, dial(lan, room, 1, (place, 9))) == errno.ENETUNREACH
        told = lan.world.count("errors_passed")
        lan.inside(room, address(lan, 1, 6), socket.SOCK_DGRAM).sendto(b"?", (str(lan.policy.host6), 9))
        lan.world.until(lambda: lan.world.count("errors_passed") == told + 1, "the error")


@in_a_namespace
def test_a_guest_that_gives_up_leaves_nothing_behind():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        listener = lan.outside(SERVER, socket.SOCK_STREAM)
        to = listener.getsockname()[:2]
        # It sends its SYN and is gone before the answer, which its kernel then refuses.
        guest = dial(lan, room, 1, to)
        guest.close()
        lan.world.until(lambda: lan.world.relay._connections._answered, "the answer")
        lan.world.relay.tick(time.monotonic() + ANSWERED_S)
        assert (lan.world.count("dials"), lan.world.count("timed_out")) == (0, 1)
        budget = lan.world.relay._connections._descriptors
        assert budget.taken == 0
        # The same port is used again at once.
        with contextlib.closing(dial(lan, room, 1, to)) as again:
            assert outcome(lan, again) == 0


@in_a_namespace
def test_a_reset_before_the_connection_is_accepted_reaches_the_far_side():
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(poller, "ROUNDS", 1))  # it is accepted in a later turn
        lan = Lan(stack)
        listener = lan.outside(SERVER, socket.SOCK_STREAM)
        guest = dial(lan, lan.guest(), 1, listener.getsockname()[:2])
        lan.world.until(lambda: connected(guest), "the answer")
        assert lan.world.count("connections") == 0
        guest.send(b"last words")
        reset(guest)
        server, got = stack.enter_context(accept(lan, listener)), bytearray()
        with pytest.raises(ConnectionResetError):
            lan.world.until(lambda: drain(server, got), "the reset")
        assert got == b"last words"
        assert lan.world.count("timed_out") == 0


@in_a_namespace
def test_a_repeated_syn_is_one_connection_and_an_old_one_harms_no_other():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        listener = lan.outside(SERVER, socket.SOCK_STREAM)
        port = listener.getsockname()[1]
        raw = lan.inside(room, address(lan, 1), socket.SOCK_RAW, socket.IPPROTO_TCP)
        segment = partial(syn, address(lan, 1), SERVER, 5555, port)
        for _ in range(3):
            raw.sendto(segment(1000), (SERVER, 0))
        accept(lan, listener)
        lan.world.until(lambda: lan.world.count("dials") == 1, "one dial")
        guest = dial(lan, room, 1, (SERVER, port))
        assert outcome(lan, guest) == 0
        server = stack.enter_context(accept(lan, listener))
        # A SYN for a connection that there is does not end it.
        raw.sendto(syn(address(lan, 1), SERVER, guest.getsockname()[1], port, 77), (SERVER, 0))
        guest.send(b"still here")
        got = bytearray()
        lan.world.until(lambda: drain(server, got) or got, "the bytes")


def syn(source, destination, source_port, port, sequence, flags=SYN):
    """A SYN, or a segment with other flags, with its checksum."""
    bare = struct.pack(">HHIIBBHHH", source_port, port, sequence, 0, 0x50, flags, 64240, 0, 0)
    data = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">HH", 6, len(bare)) + bare
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return bare[:16] + struct.pack(">H", ~total & 0xFFFF) + bare[18:]


@in_a_namespace
def test_made_up_segments_get_few_resets_and_a_connection_beside_them_goes_on():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        listener = lan.outside(SERVER, socket.SOCK_STREAM)
        port = listener.getsockname()[1]
        guest = dial(lan, room, 1, (SERVER, port))
        assert outcome(lan, guest) == 0
        server = stack.enter_context(accept(lan, listener))
        raw = lan.inside(room, address(lan, 1), socket.SOCK_RAW, socket.IPPROTO_TCP)
        begin, heard = time.monotonic(), 0
        for number in range(3 * STRAYS[1]):
            raw.sendto(syn(address(lan, 1), SERVER, 1024 + number, port + 1, 1, ACK), (SERVER, 0))
        lan.world.until(lambda: lan.kernel.flooded() >= STRAYS[1], "the kernel's drops")
        with contextlib.suppress(BlockingIOError):
            while packet := raw.recv(2048):
                heard += packet[33] & RESET == RESET
        assert 0 < heard <= STRAYS[1] + STRAYS[0] * (time.monotonic() - begin) + 1
        for sender, receiver in ((guest, server), (server, guest)):
            sender.send(b"still here")
            got = bytearray()
            lan.world.until(lambda r=receiver, g=got: drain(r, g) or g == b"still here", "the bytes")


@in_a_namespace
def test_a_guest_that_floods_with_syns_has_its_share_and_others_connect():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        flooder, other = lan.guest(), lan.guest()
        add_silent_host()
        lan.world.relay._connections._dial_places.most = 45
        raw = lan.inside(flooder, address(lan, 1), socket.SOCK_RAW, socket.IPPROTO_TCP)
        for number in range(200):
            with contextlib.suppress(OSError):
                raw.sendto(syn(address(lan, 1), SILENT, 1024 + number, 80, 1), (SILENT, 0))
            lan.world.turn(0)
        lan.world.until(lambda: lan.world.count("over_limit") >= 100, "the bound")
        assert lan.world.count("dials") == 40
        assert len([line for line in lan.world.logged if "port 1" in line]) <= 3
        listener = lan.outside(SERVER, socket.SOCK_STREAM)
        assert outcome(lan, dial(lan, other, 2, listener.getsockname()[:2])) == 0


@in_a_namespace
def test_a_forward_to_a_port_where_no_guest_listens_is_a_reset_at_once():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        closed = lan.inside(room, address(lan, 1), socket.SOCK_STREAM)
        forward = lan.world.forward(closed)
        assert family(str(forward.host)) == socket.AF_INET
        with socket.create_connection((str(forward.host), forward.port)) as client:
            client.setblocking(False)
            with pytest.raises(ConnectionResetError):
                lan.world.until(lambda: drain(client, bytearray()), "the reset")
        assert lan.world.count("refused") == 1


@in_a_namespace
def test_a_guest_that_scans_ports_is_not_answered_for_a_while_and_others_are():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        scanner, other = lan.guest(), lan.guest()
        raw = lan.inside(scanner, address(lan, 1), socket.SOCK_RAW, socket.IPPROTO_TCP)
        for number in range(500):
            raw.sendto(syn(address(lan, 1), SERVER, 1024 + number, 1 + number, 1), (SERVER, 0))
            lan.world.turn(0)
        lan.world.until(lambda: lan.world.count("over_limit") >= 50, "the bound")
        assert lan.world.count("refused") >= FAILURES[1]
        assert any("after many that failed" in line for line in lan.world.logged)
        assert outcome(lan, dial(lan, other, 2, (SERVER, 9))) == errno.ECONNREFUSED
        listener = lan.outside(SERVER, socket.SOCK_STREAM)
        # What it asks for a second later is answered again.
        assert outcome(lan, dial(lan, scanner, 1, listener.getsockname()[:2])) == 0

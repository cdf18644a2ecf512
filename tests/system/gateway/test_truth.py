"""Truth through a real gateway, by real programs: refusals, routes, and ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.gateway.place import GUEST, HOST, OUTSIDE, Place
from tests.helpers.gateway.processes import process
from tests.helpers.guests.machine import CommandError
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest
FAR = "203.0.113.5"
MANY = 1500
"""Connections in a row, over a thousand ports: as 60,000 over all of them, and some."""


def connect(room: Namespace, *to: object) -> int:
    """Connect in a namespace; return the errno, 0 for success."""

    def make() -> int:
        family = socket.AF_INET6 if ":" in str(to[0]) else socket.AF_INET
        with socket.socket(family) as sock:
            sock.settimeout(PATIENCE)
            return sock.connect_ex(to)

    return room.inside(make)


def test_a_connect_gets_the_answer_of_the_far_side(place: Callable[..., Place]) -> None:
    here = place("--deny", "192.0.2.0/24")
    port = here.serve(here.host, "127.0.0.1", "loopback")
    assert connect(here.guest, HOST, port) == 0
    for to in (HOST, OUTSIDE):
        assert connect(here.guest, to, 9) == errno.ECONNREFUSED
    assert connect(here.guest, "198.18.0.1", 80) == errno.ENETUNREACH
    assert connect(here.guest, "192.0.2.1", 80) == errno.EHOSTUNREACH
    assert connect(here.guest, "2001:db8::7", 80) == errno.ENETUNREACH
    wait_for(lambda: "port 2" in here.switch.log() and "--deny" in here.switch.log(), "the line in the log")
    assert here.switch.json("stats")["gateway"]["refused"]["denied"] >= 1  # a SYN may be repeated


def test_the_way_and_its_errors_are_seen_by_traceroute_and_ping(place: Callable[..., Place]) -> None:
    here = place()
    here.internet.run(f"ip address add {FAR}/32 dev lo; ip route add default via 198.51.100.1")
    here.host.run(f"ip route add {FAR}/32 via {OUTSIDE}; sysctl -qw net.ipv4.icmp_ratelimit=0")
    for kind in ("", "-I"):
        hops = here.guest.run(f"busybox traceroute {kind} -n -w 20 -q 1 -m 5 {FAR}").splitlines()[1:]
        assert [re.split(r" +", line.strip())[1] for line in hops] == ["192.168.127.1", FAR]
    for size in (56, 1472, 1473, 2000, 60_000):
        for to in (OUTSIDE, HOST, "192.168.127.1"):
            assert " 0% packet loss" in here.guest.run(f"busybox ping -c 1 -W 20 -s {size} {to}")


def test_a_host_without_pings_is_reported_at_the_start(place: Callable[..., Place]) -> None:
    here = place(pings=False)
    assert here.switch.log().count("net.ipv4.ping_group_range='0 2147483647'") == 1
    with pytest.raises(CommandError):
        here.guest.run(f"busybox ping -c 1 -W 1 {OUTSIDE}")


def test_curl_is_not_held_up_where_the_host_has_no_ipv6(
    place: Callable[..., Place],
) -> None:
    here = place()
    port = here.serve(here.internet, OUTSIDE, "outside")
    wait_for(lambda: "inet6" in here.guest.run("ip -6 address show dev eth0 scope global"), "IPv6 of the LAN")
    assert "default" not in here.guest.run("ip -6 route")
    both = f"--resolve both.test:{port}:[2001:db8::7],{OUTSIDE}"

    def quick() -> bool:
        begin = time.monotonic()
        page = here.guest.run(
            f"curl --silent --max-time {PATIENCE} --noproxy '*' {both} http://both.test:{port}/"
        )
        assert page == "outside"
        return time.monotonic() - begin < 5

    wait_for(quick, "a page without the wait for an address that does not answer")


@contextlib.contextmanager
def served(room: Namespace, *, closes_first: bool) -> Iterator[None]:
    """Answer connections at port 80 of a guest, and end them or wait for their end."""

    def make() -> socket.socket:
        return socket.create_server((GUEST, 80), backlog=512)

    listener = room.inside(make)

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    sock.recv(10)
                    sock.sendall(b"ok")
                    if not closes_first:
                        sock.recv(10)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@pytest.mark.parametrize("closes_first", [False, True], ids=["client", "guest"])
def test_short_connections_in_a_row_do_not_run_out_of_ports(
    place: Callable[..., Place], *, closes_first: bool
) -> None:
    here = place("--forward", f"tcp:127.0.0.1:8080:{GUEST}:80")
    inside = process(here.switch, "gateway.inside")
    here.host.run(f"nsenter -t {inside} -n sysctl -qw net.ipv4.ip_local_port_range='32768 33767'")

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", 8080), PATIENCE) as sock:
            sock.sendall(b"hi")
            answer = sock.recv(10)
            if closes_first:
                assert sock.recv(10) == b""
            return answer

    with served(here.guest, closes_first=closes_first):
        assert here.host.inside(lambda: {ask() for _ in range(MANY)}) == {b"ok"}


def test_a_vm_is_reached_at_the_address_of_another_though_it_has_said_nothing(
    place: Callable[..., Place],
) -> None:
    here = place("--forward", f"tcp:127.0.0.1:8080:{GUEST}:80")
    inside = process(here.switch, "gateway.inside")
    other = f"{GUEST} lladdr 52:54:00:00:00:98 dev lan0 nud reachable"  # it has left a moment ago

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", 8080), PATIENCE) as sock:
            sock.sendall(b"hi")
            return sock.recv(10)

    with served(here.guest, closes_first=False):
        here.host.run(f"nsenter -t {inside} -n ip neigh replace {other}")
        assert here.host.inside(ask) == b"ok"


def test_connections_to_a_killed_vm_are_reset(place: Callable[..., Place]) -> None:
    here = place("--forward", f"tcp:127.0.0.1:2222:{GUEST}:22")
    with contextlib.ExitStack() as stack:
        guest = stack.enter_context(here.guest.inside(lambda: socket.create_server((GUEST, 22))))
        clients = [
            stack.enter_context(
                here.host.inside(lambda: socket.create_connection(("127.0.0.1", 2222), PATIENCE))
            )
            for _ in range(2)
        ]
        for _ in clients:
            stack.enter_context(guest.accept()[0])
        here.pump.close()
        here.switch.wait_live(1)
        clients[1].sendall(b"are you there?")
        for client in clients:
            client.settimeout(PATIENCE)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert here.switch.json("stats")["gateway"]["relayed"]["guest_gone"] == 2


def test_a_stream_through_a_gateway_that_is_killed_does_not_look_whole(place: Callable[..., Place]) -> None:
    here = place("--forward", f"tcp:127.0.0.1:8080:{GUEST}:80")
    with contextlib.ExitStack() as stack:

        def listen(room: Namespace, at: str, port: int) -> socket.socket:
            return stack.enter_context(room.inside(lambda: socket.create_server((at, port))))

        def dial(room: Namespace, at: str, port: int) -> socket.socket:
            return stack.enter_context(room.inside(lambda: socket.create_connection((at, port), PATIENCE)))

        def accept(listener: socket.socket) -> socket.socket:
            return stack.enter_context(listener.accept()[0])

        guests, outside = listen(here.guest, GUEST, 80), listen(here.internet, OUTSIDE, 80)
        inward = dial(here.host, "127.0.0.1", 8080), accept(guests)
        outward = dial(here.guest, OUTSIDE, 80), accept(outside)
        for one, other in (inward, outward, outward[::-1], inward[::-1]):
            one.sendall(b"the first half")
            assert other.recv(100) == b"the first half"
        os.kill(process(here.switch, "gateway"), signal.SIGKILL)
        for sock in (*inward, *outward):
            sock.settimeout(PATIENCE)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)

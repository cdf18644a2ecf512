"""The way of guests' datagrams outside: routers behind the host, and the MTU of each part of it."""

import contextlib
import socket
from pathlib import Path

import pytest

from tests.helpers.gateway.lan import GROUP_RANGE, SILENT, Lan, add_silent_host, address, in_a_namespace, ip
from tests.helpers.guests.netns import Namespace

pytestmark = pytest.mark.guest


@in_a_namespace
def test_routers_behind_the_host_are_seen_and_their_path_mtu_is_learnt():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room = lan.guest()
        routed(stack)
        GROUP_RANGE.write_text("0 2147483647")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for version, far in ((4, "198.18.1.9"), (6, "2001:db8:9::9")):
            guest = lan.inside(room, address(lan, 1, version))
            level, recverr, hops = (
                (socket.IPPROTO_IP, 11, socket.IP_TTL)
                if version == 4
                else (socket.IPPROTO_IPV6, 25, socket.IPV6_UNICAST_HOPS)
            )
            guest.setsockopt(level, recverr, 1)
            gateway = str(lan.policy.gateway4 if version == 4 else lan.settings.gateway6)
            router = "198.18.0.2" if version == 4 else "2001:db8:8::2"
            for limit, expected in ((1, gateway), (2, router)):
                guest.setsockopt(level, hops, limit)
                send(guest, b"probe", (far, 33434))
                assert offender(lan.world, guest, version) == expected
            guest.setsockopt(level, hops, 9)
            send(guest, b"probe", (far, 33434))
            assert offender(lan.world, guest, version) == far
            # The way behind the router takes 1300 bytes: the first datagram is lost, and its sender told.
            guest.setsockopt(level, 10 if version == 4 else 23, 2)
            guest.connect((far, 7))
            with contextlib.suppress(OSError):
                guest.send(bytes(1400))
            mtu = 14 if version == 4 else 24
            lan.world.until(
                lambda guest=guest, level=level, mtu=mtu: guest.getsockopt(level, mtu) == 1300,
                "the path's MTU",
            )


@in_a_namespace
def test_the_host_alias_answers_whether_it_is_still_there():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        room, alias = lan.guest(), lan.policy.host6
        room.run(f"busybox ping -6 -c 1 -W 1 {alias} || true")
        known = room.run(f"ip -6 neigh show {alias}").split()
        mac = known[known.index("lladdr") + 1]
        room.run(f"ip -6 neigh replace {alias} dev eth0 lladdr {mac} nud probe")  # asks the alias itself
        lan.world.until(lambda: "REACHABLE" in room.run(f"ip -6 neigh show {alias}"), "the answer")
        assert lan.world.count("not_carried") == 0


@in_a_namespace
def test_the_mtu_of_the_hosts_own_interface_is_learnt():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest = lan.inside(lan.guest(), address(lan, 1))
        add_silent_host()
        ip("link set silent mtu 1300")
        guest.setsockopt(socket.IPPROTO_IP, 10, 2)
        guest.connect((SILENT, 7))
        guest.send(bytes(1400))
        lan.world.until(lambda: guest.getsockopt(socket.IPPROTO_IP, 14) == 1300, "the interface's MTU")


def routed(stack):
    """Put a router behind the host, and a place behind the router at the end of a narrower way."""
    router, far = (stack.enter_context(contextlib.closing(Namespace(name))) for name in ("router", "far"))
    ip(
        f"link add out type veth peer name eth0 netns {router.netns}",
        "address add 198.18.0.1/24 dev out",
        "address add 2001:db8:8::1/64 dev out nodad",
        "link set out up",
        "route add 198.18.1.0/24 via 198.18.0.2",
        "-6 route add 2001:db8:9::/64 via 2001:db8:8::2",
    )
    router.run(
        "ip address add 198.18.0.2/24 dev eth0; ip address add 2001:db8:8::2/64 dev eth0 nodad;"
        f"ip link set eth0 up; ip link add far mtu 1300 type veth peer name eth0 netns {far.netns};"
        "ip address add 198.18.1.1/24 dev far; ip address add 2001:db8:9::1/64 dev far nodad;"
        "ip link set far up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
        " net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0"
    )
    far.run(
        "ip address add 198.18.1.9/24 dev eth0; ip address add 2001:db8:9::9/64 dev eth0 nodad;"
        "ip link set eth0 mtu 1300 up; ip route add default via 198.18.1.1;"
        "ip -6 route add default via 2001:db8:9::1;"
        "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0"
    )


def send(sock, data, to):
    """Send, although an error about what was sent before may be waiting."""
    try:
        sock.sendto(data, to)
    except OSError:
        sock.sendto(data, to)


def offender(world, sock, version):
    """Return the sender of an error about a datagram."""
    found = []

    def more():
        with contextlib.suppress(BlockingIOError):
            _, control, _, _ = sock.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
            found.extend(value[16:] for _, kind, value in control if kind in (11, 25))
        return found

    world.until(more, "an error")
    at = slice(4, 8) if version == 4 else slice(8, 24)
    return socket.inet_ntop(socket.AF_INET if version == 4 else socket.AF_INET6, found[0][at])

"""The gateway's namespace as it is, guests in namespaces of their own, and the relay in the test's thread.

The thread has entered a network namespace that is "the host" and has "the Internet" on its loopback, at
SERVER and SERVER6. The gateway's namespace is set up by the gateway's own code; a guest is a namespace whose
``eth0`` ends in the bridge ``lan0``. No route leads elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from forwarder.future import Future
from forwarder.messages import Reply
from gateway.inside import addresses, limits, nft, transparent
from gateway.inside.interfaces import LAN, OUT
from gateway.inside.kernel import Kernel
from gateway.inside.process import KINDS
from gateway.ports import Port
from gateway.relay import frame_sockets
from gateway.relay.frames import Way
from gateway.relay.tun import open_tun
from gateway.settings import read
from tests.helpers.gateway.world import World, try_accept
from tests.helpers.guests import requirements
from tests.helpers.guests.netns import Namespace

CLONE_NEWNET = 0x40000000
SERVER, SERVER6, SILENT = "203.0.113.7", "2001:db8::7", "192.0.2.9"
REQUIRED = ("root", "tun", "ip", "nft")
GROUP_RANGE = Path("/proc/sys/net/ipv4/ping_group_range")
"""Of the reading thread's namespace."""

T = TypeVar("T")


def in_a_namespace(test: Callable[[], None]) -> Callable[[], None]:
    """Run ``test`` in a thread that is in a new network namespace, with its loopback up."""

    @functools.wraps(test)
    def run() -> None:
        requirements.require(REQUIRED)
        outcome: list[BaseException] = []

        def thread() -> None:
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


def ip(*commands: str) -> None:
    """Run commands of ``ip`` in the thread's namespace."""
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, timeout=20)


def add_silent_host() -> None:
    """Make a way to SILENT, which takes everything and never answers."""
    ip(
        "link add silent type veth peer name nobody",
        "address add 192.0.2.1/24 dev silent",
        "link set silent up",
        "link set nobody up",
        f"neigh add {SILENT} lladdr 02:00:00:00:00:09 dev silent",
    )


class Lan:
    """A relay, the namespace behind it, and guests."""

    def __init__(self, stack: contextlib.ExitStack, **options: object) -> None:
        """``options`` are the gateway's, as an operator says them."""
        self._stack = stack
        self.settings = read(options)
        self.policy = self.settings.policy
        self.namespace = stack.enter_context(contextlib.closing(Namespace("lan")))
        self.guests: list[Namespace] = []
        self.ports: dict[bytes, Port] = {}
        self.world = stack.enter_context(contextlib.closing(World(self.policy, self._make)))
        self.namespace.run(
            "ip link add lan0 type bridge forward_delay 0;"
            # Where br_netfilter is loaded, the packet filter would drop frames before the bridge has them.
            "for key in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $key ] || echo 0 >$key; done"
        )
        tun, sockets, frames = self.namespace.inside(self._set_up)
        relay = self.world.relay
        relay.serve(sockets.values())
        relay.carry(Way(tun, frames, self.ports.get, self._neighbours, self.settings.mtu))

    def guest(self) -> Namespace:
        """Add a guest, with the addresses that ``address`` has."""
        number = len(self.guests) + 1
        room = self._stack.enter_context(contextlib.closing(Namespace(f"guest{number}")))
        self.guests.append(room)
        mac = f"52:54:00:00:00:{number:02x}"
        self.ports[bytes.fromhex(mac.replace(":", ""))] = Port(number, 1)
        self.namespace.run(
            f"ip link add port{number} master lan0 type veth peer name eth0 netns {room.netns};"
            f"ip link set port{number} up"
        )
        four, six = address(self, number), address(self, number, 6)
        room.run(
            f"ip link set eth0 address {mac} up; ip address add {four}/24 dev eth0;"
            f"ip address add {six}/64 dev eth0 nodad; ip route add default via {self.policy.gateway4};"
            f"ip -6 route add default via {self.settings.gateway6}"
        )
        return room

    def inside(
        self, room: Namespace, address_: str, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        """Return a socket of a guest, bound to an address of its own."""

        def make() -> socket.socket:
            sock = socket.socket(family(address_), kind, protocol)
            sock.bind((address_, 0))
            sock.setblocking(False)
            return sock

        return self._stack.enter_context(room.inside(make))

    def outside(self, address_: str, kind: int = socket.SOCK_DGRAM, port: int = 0) -> socket.socket:
        """Return a socket of the host or the Internet."""
        sock = self._stack.enter_context(socket.socket(family(address_), kind))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((address_, port))
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.listen(64)
        return sock

    def _set_up(self) -> tuple[int, dict[str, socket.socket], list[socket.socket]]:
        tun = open_tun(OUT)
        addresses.set_up(self.settings)
        nft.load(nft.rules(self.settings, LAN) + limits.rules(LAN))
        self.kernel = Kernel()
        return tun, transparent.listen(), frame_sockets.open_all(LAN, self.policy)

    def _neighbours(self) -> Future[Reply]:
        future: Future[Reply] = Future()
        future.set_result(Reply(True, self.kernel.neighbours()))
        return future

    def _make(self, kind: str, deliver: Callable[[socket.socket | None], None]) -> None:
        family_, type_ = KINDS[kind]
        deliver(self.namespace.inside(lambda: socket.socket(family_, type_ | socket.SOCK_NONBLOCK)))


def address(lan: Lan, number: int, version: int = 4) -> str:
    """Return the address of a guest."""
    return str((lan.policy.subnet if version == 4 else lan.policy.prefix)[number + 1])


def family(address_: str) -> int:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in address_ else socket.AF_INET


def dial(lan, room, number, to, **options):
    """Begin to connect as a guest."""
    sock = lan.inside(room, address(lan, number, 6 if ":" in to[0] else 4), socket.SOCK_STREAM)
    with contextlib.suppress(BlockingIOError):
        sock.connect(to)
    return sock


def outcome(lan, sock):
    """Return the errno of a connect, 0 for success."""
    found = []

    def decided():
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error or connected(sock):
            found.append(error)
        return found

    lan.world.until(decided, "the connect to be decided")
    return found[0]


def accept(lan, listener):
    found = []
    lan.world.until(lambda: found or found.extend(filter(None, [try_accept(listener)])), "a connection")
    return found[0]


def connected(sock):
    (state,) = struct.unpack_from("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))
    return state == 1


def echo(ident, sequence, payload, kind=8):
    """Return an ICMP message; the kernel fills in the checksum of IPv6."""
    data = struct.pack(">BBHHH", kind, 0, 0, ident, sequence) + payload
    total = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2]))
    total += data[-1] << 8 if len(data) % 2 else 0
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return data[:2] + struct.pack(">H", ~total & 0xFFFF) + data[4:]

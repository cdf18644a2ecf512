"""A TAP in a network namespace of its own, and the neighbours behind it."""

from __future__ import annotations

from forwarder import _core
from forwarder.channel import close_all
from tests.helpers.core.mini_switch import MiniSwitch, Vm, mac
from tests.helpers.core.model_segments import UDP, Flow
from tests.helpers.guests.fake_vm import PacketVM
from tests.helpers.guests.netns import Namespace

MTU = 65_521
FLOWS = {
    "TCP/IPv4": Flow(b"a" * 40_000, 1448, options=bytes(12), ident=0xFFFE),
    "TCP/IPv6": Flow(b"b" * 40_000, 1428, ipv6=True, options=bytes(12), sequence=0xFFFF_F000),
    "UDP/IPv4": Flow(b"c" * 20_000, 1472, protocol=UDP),
    "UDP/IPv6": Flow(b"d" * 20_000, 1452, protocol=UDP, ipv6=True),
    "TCP/IPv4 in a VLAN": Flow(b"e" * 40_000, 1448, tags=(7,)),
    "one segment": Flow(b"f" * 1000, 1448),
}


def device_in(inside: Namespace) -> int:
    """Make the namespace's interface and return its descriptor."""
    # The kernel has a lot to say on a new IPv6 interface, and the tests count frames.
    inside.run("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    with inside.path.open() as netns:
        device, name = _core.tap_open(inside.interface, netns.fileno())
    inside.run(f"ip link set {name} mtu {MTU} up")
    return device


class Tap:
    """A switch of a TAP (port 1) and a stream VM (port 2); ``kernel`` speaks at the TAP's other side."""

    def __init__(self, inside: Namespace) -> None:
        self.inside = inside
        self.name = inside.interface
        self.switch = MiniSwitch()
        self.switch.attach(1, "tap", device_in(inside))
        self.vm: Vm = self.switch.add(2, "stream")
        self.kernel: PacketVM = inside.packet_vm()

    def counters(self) -> dict[str, int]:
        self.switch.settle()
        return self.switch.counters(1)

    def close(self) -> None:
        self.kernel.close()
        self.switch.close()


def towards(number: int, flow: Flow, source: int = 1) -> Flow:
    return flow._replace(destination=mac(number), source=mac(source))


class Neighbour:
    """Port 9, of which there is nothing but its end of a ring to the TAP's engine."""

    def __init__(self, tap: Tap) -> None:
        epochs = (9, 900, 1, tap.switch.epochs[1])
        self._tap = tap
        tap.switch.engines[1].peer_join(9, 900, 900)
        fds = _core.ring_create(1 << 20, *epochs)
        tap.switch.engines[1].attach_rx(9, 900, *fds)
        self._writer = _core.RingWriter(*fds, *epochs)
        close_all(fds)

    def put(self, records: bytes, *, with_headers: bool = True) -> None:
        assert self._writer.put(records, mac(9), with_headers)
        self._writer.publish()
        self._tap.switch.settle()

"""The core and a TAP device in a network namespace of the test's own: the kernel's network stack as a VM."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from forwarder import _core
from tests.guests.fake_vm import PacketVM
from tests.guests.netns import Namespace
from tests.guests.waiting import wait_for
from tests.mini_switch import BROADCAST, MiniSwitch, Vm, frame, mac

pytestmark = pytest.mark.guest
MTU = 65_521


class Tap:
    """A switch of a TAP (port 1) and a stream VM (port 2); ``kernel`` speaks at the TAP's other side."""

    def __init__(self, inside: Namespace) -> None:
        self.inside = inside
        # The kernel has a lot to say on a new IPv6 interface, and the test counts frames.
        inside.run("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
        with inside.path.open() as netns:
            device, self.name = _core.tap_open(inside.interface, netns.fileno())
        inside.run(f"ip link set {self.name} mtu {MTU} up")
        self.switch = MiniSwitch()
        self.switch.attach(1, "tap", device)
        self.vm: Vm = self.switch.add(2, "stream")
        self.kernel: PacketVM = inside.packet_vm()

    def counters(self) -> dict[str, int]:
        self.switch.settle()
        return self.switch.counters(1)

    def close(self) -> None:
        self.kernel.close()
        self.switch.close()


@pytest.fixture
def tap(namespace: Callable[[str], Namespace]) -> Iterator[Tap]:
    made = Tap(namespace("inside"))
    yield made
    made.close()


@pytest.mark.parametrize("size", [14, 42, 60, 1514, 9014, 65535])
def test_frames_pass_both_ways(tap: Tap, size: int) -> None:
    out = frame(BROADCAST, mac(2), os.urandom(size), size)[:size]
    tap.vm.send(out)
    tap.switch.settle()
    if size > 14:  # a packet socket is not shown a frame without a payload
        assert tap.kernel.receive() == out
    assert tap.counters()["tx_frames"] == 1
    back = frame(mac(2), mac(1), os.urandom(size), size)[:size]
    tap.kernel.send(back)
    tap.switch.settle()
    assert tap.vm.received() == [back]


@pytest.mark.parametrize("size", [65_550, 69_632])
def test_frame_beyond_what_the_device_takes_costs_only_itself(tap: Tap, size: int) -> None:
    tap.vm.send(frame(BROADCAST, mac(2), size=size), frame(BROADCAST, mac(2), b"after"))
    counters = tap.counters()
    assert counters["tx_frames"] + counters["refused"] == 2
    assert tap.switch.engines[1].link_error == ""
    tap.kernel.receive_matching(lambda each: each[14:19] == b"after")


def test_device_that_is_down_refuses_frames_and_recovers(tap: Tap) -> None:
    tap.inside.run(f"ip link set {tap.name} down")
    tap.vm.send(*[frame(BROADCAST, mac(2))] * 3)
    assert tap.counters()["refused"] == 3
    before = tap.counters()["turns"]
    tap.switch.engines[1].run(0.05)
    assert tap.counters()["turns"] - before < 20
    tap.inside.run(f"ip link set {tap.name} up")
    tap.kernel.close()  # it was told that its network is down
    tap.kernel = tap.inside.packet_vm()
    tap.vm.send(frame(BROADCAST, mac(2), b"up again"))
    tap.switch.settle()
    tap.kernel.receive_matching(lambda each: each[14:22] == b"up again")
    assert tap.counters()["refused"] == 3


def test_device_that_is_deleted_ends_the_link(tap: Tap) -> None:
    tap.inside.run(f"ip link delete {tap.name}")
    wait_for(lambda: tap.switch.engines[1].run(0) & _core.EVENT_LINK_DOWN, "the end of the link")
    assert tap.switch.engines[1].link_error


def test_names_that_cannot_be_opened_say_why(namespace: Callable[[str], Namespace]) -> None:
    with namespace("inside").path.open() as netns:
        with pytest.raises(OSError, match="lo"):
            _core.tap_open("lo", netns.fileno())
        before = os.readlink("/proc/thread-self/ns/net")
        with pytest.raises(OSError, match="no/name"):
            _core.tap_open("no/name", netns.fileno())
        assert os.readlink("/proc/thread-self/ns/net") == before
    with open("/dev/null") as null, pytest.raises(OSError, match="Invalid argument"):
        _core.tap_open("bh-none", null.fileno())

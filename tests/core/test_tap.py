"""The core and a TAP device in a network namespace of the test's own: the kernel's network stack as a VM.

``test_offload`` has what becomes of a large frame; here is that it does, on every way out of a TAP.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

import pytest

from forwarder import _core
from forwarder.names import format_mac
from tests.helpers.core.mini_switch import BROADCAST, frame, mac, record
from tests.helpers.core.model_segments import NEEDS_CSUM, vnet
from tests.helpers.core.tap import FLOWS, Neighbour, Tap, device_in, towards
from tests.helpers.guests.fake_vm import OffloadVM
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.waiting import wait_for

pytestmark = pytest.mark.guest


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
def test_a_frame_too_long_for_the_device_costs_only_itself(tap: Tap, size: int) -> None:
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
    assert "the TAP device was deleted; attach it again" in tap.switch.engines[1].link_error


def test_a_device_has_its_mac_address_from_its_first_frame_on(
    namespace: Callable[[str], Namespace],
) -> None:
    inside = namespace("inside")
    with inside.path.open() as netns:
        device, name = _core.tap_open("bh-mac", netns.fileno(), mac(7))
        with pytest.raises(ValueError, match="a MAC address of 5 bytes"):
            _core.tap_open("bh-short", netns.fileno(), mac(7)[:5])
    with os.fdopen(device, "rb", buffering=0) as file:
        assert format_mac(mac(7)) in inside.run(f"ip link show {name}")
        wait_for(lambda: select.select([file], [], [], 0)[0], "the kernel's first frame")
        assert file.read(65535)[16:22] == mac(7)


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


@pytest.fixture
def offloads(tap: Tap) -> Iterator[OffloadVM]:
    with tap.inside.offload_vm() as made:
        yield made


@pytest.mark.parametrize("kind", FLOWS)
def test_a_large_frame_to_another_kind_of_vm_is_cut(tap: Tap, offloads: OffloadVM, kind: str) -> None:
    flow = towards(2, FLOWS[kind])
    tap.vm.send(frame(BROADCAST, mac(2)))
    tap.switch.settle()
    for _ in range(2):  # while it waits for the ring, and when that is there
        offloads.send(flow.unfinished())
        tap.switch.settle()
        assert tap.vm.received() == flow.finished()
    counters = tap.counters()
    # Whether the kernel leaves the cutting of just these to a card is its own affair.
    assert counters["rx_frames"] in (2, 2 * len(flow.finished()))
    assert counters["flooded"] == counters["offload"] == 0


@pytest.mark.parametrize("destination", [BROADCAST, mac(9)], ids=["group", "unknown"])
def test_a_large_frame_that_is_flooded_is_cut_and_each_part_counts(
    tap: Tap, offloads: OffloadVM, destination: bytes
) -> None:
    flow = FLOWS["TCP/IPv4"]._replace(destination=destination, source=mac(1))
    offloads.send(flow.unfinished())
    tap.switch.settle()
    assert tap.vm.received() == flow.finished()
    assert tap.counters()["flooded"] == len(flow.finished())
    tap.switch.engines[1].set_limits(broadcast=10, multicast=0, unknown=10, bytes=0, macs=0)
    offloads.send(flow.unfinished())
    assert tap.counters()["storm"] >= len(flow.finished()) - 5


def test_a_large_frame_for_which_no_ring_is_to_be_had_is_cut(tap: Tap, offloads: OffloadVM) -> None:
    flow = towards(2, FLOWS["TCP/IPv4"])
    tap.switch.rings_given = False
    tap.vm.send(frame(BROADCAST, mac(2)))
    tap.switch.settle()
    offloads.send(flow.unfinished())
    tap.switch.settle()
    assert tap.vm.received() == []
    tap.switch.engines[1].give_up_ring(2)
    offloads.send(flow.unfinished())
    tap.switch.settle()
    assert tap.vm.received() == 2 * flow.finished()


@pytest.mark.parametrize("kind", FLOWS)
def test_between_taps_a_large_frame_stays_one(
    tap: Tap, offloads: OffloadVM, kind: str, namespace: Callable[[str], Namespace]
) -> None:
    other = namespace("other")
    tap.switch.attach(3, "tap", device_in(other))
    flow = towards(3, FLOWS[kind])
    with other.offload_vm() as receiver:
        receiver.send(vnet() + frame(BROADCAST, mac(3)))
        tap.switch.settle()
        offloads.send(vnet() + frame(mac(3), mac(1)))  # asks for the ring
        tap.switch.settle()
        receiver.receive_matching(lambda each: each[10:16] == mac(3))
        before = tap.switch.counters(3)
        offloads.send(flow.unfinished())
        tap.switch.settle()
        after = tap.switch.counters(3)
        if after["tx_frames"] - before["tx_frames"] > 1:
            pytest.skip("this kernel cuts such frames itself")
        whole = flow.unfinished()
        assert after["tx_bytes"] - before["tx_bytes"] == len(whole) - OffloadVM.HEADER_BYTES
        got = receiver.receive()
        assert got[10:] == whole[10:]
        assert got[0] & NEEDS_CSUM
        if len(flow.finished()) > 1:  # else the kernel says that it is an ordinary frame
            assert (got[1:2], got[4:6]) == (whole[1:2], whole[4:6])


def test_a_large_frame_that_makes_no_sense_goes_nowhere_and_is_counted(tap: Tap, offloads: OffloadVM) -> None:
    flow = towards(2, FLOWS["TCP/IPv4"])
    tap.vm.send(frame(BROADCAST, mac(2)))
    tap.switch.settle()
    offloads.send(flow._replace(mss=1).unfinished())
    offloads.send(flow.unfinished())
    assert tap.counters()["offload"] == 1
    assert tap.vm.received() == flow.finished()


def test_a_header_that_the_kernel_does_not_take_costs_only_its_frame(tap: Tap) -> None:
    good = frame(mac(1), mac(9))
    nonsense = [
        vnet(NEEDS_CSUM, start=100, offset=0) + good,
        vnet(kind=77, segment=100) + good,
        vnet(NEEDS_CSUM, kind=1, segment=0, start=34, offset=16) + good,
    ]
    Neighbour(tap).put(b"".join(map(record, [*nonsense, vnet() + good])))
    counters = tap.counters()
    assert (counters["refused"], counters["tx_frames"], counters["stale_ring"]) == (3, 1, 0)
    assert tap.kernel.receive() == good
    assert tap.switch.engines[1].link_error == ""


def test_a_record_too_short_for_its_header_ends_its_ring(tap: Tap) -> None:
    neighbour = Neighbour(tap)
    neighbour.put(record(vnet() + frame(mac(1), mac(9))) + record(bytes(23)))
    assert (tap.counters()["tx_frames"], tap.counters()["stale_ring"]) == (1, 2)
    neighbour.put(record(vnet() + frame(mac(1), mac(9))))
    assert tap.counters()["tx_frames"] == 1


def test_records_with_and_without_headers_follow_each_other(tap: Tap) -> None:
    neighbour = Neighbour(tap)
    sent = [frame(mac(1), mac(9), bytes((number,))) for number in range(6)]
    for number, each in enumerate(sent):
        with_headers = number % 2 == 1
        neighbour.put(record(vnet() + each if with_headers else each), with_headers=with_headers)
    assert [tap.kernel.receive() for _ in sent] == sent


def test_a_device_that_existed_before_gets_the_present_offloads(
    namespace: Callable[[str], Namespace],
) -> None:
    inside = namespace("inside")
    inside.run(f"ip tuntap add dev {inside.interface} mode tap")
    tap = Tap(inside)
    try:
        flow = towards(2, FLOWS["TCP/IPv4"])
        with inside.offload_vm() as kernel:
            kernel.send(flow._replace(destination=BROADCAST).unfinished())
        before = len(flow.finished())
        assert tap.counters()["rx_frames"] < before
        # The kernel has said a word of its own meanwhile, in IPv6.
        assert sum(each[12:14] == b"\x08\0" for each in tap.vm.received()) == before
    finally:
        tap.close()

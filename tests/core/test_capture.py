"""What a capture holds is what the counters count, to the frame; its reader can be as slow as it likes."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

import pytest

from tests.helpers.core.captures import DROP, IN, OUT, Capture
from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, Vm, frame, mac

ARP = b"".join(
    struct.pack("=HBBI", *each)
    for each in ((0x28, 0, 0, 12), (0x15, 0, 1, 0x0806), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))
)
"""The program of `arp`: is the half word at 12 0x0806?"""

PAUSE = (bytes.fromhex("0180c2000001") + mac(2) + b"\x88\x08\x00\x01").ljust(60, b"\0")


@pytest.fixture
def switch() -> Iterator[MiniSwitch]:
    with contextlib.closing(MiniSwitch()) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_the_counters(switch: MiniSwitch, kind: str) -> None:
    one, two, three = (switch.add(port, kind) for port in (1, 2, 3))
    switch.engines[1].set_limits(broadcast=1, multicast=0, unknown=0, bytes=0, macs=3)
    switch.engines[2].set_flood_unknown(False)
    one.send(frame(BROADCAST, mac(1)))
    switch.settle()
    switch.engines[1].set_reach(3, False)
    switch.engines[3].set_reach(1, False)
    before = {port: switch.counters(port) for port in (1, 2, 3)}
    capture = Capture(switch)
    for turn in range(6):
        one.send(*(frame(BROADCAST, mac(1), size=60 + turn) for _ in range(4)))
        two.send(frame(mac(1), mac(2), size=1514), frame(mac(99), mac(2)), PAUSE)
        one.send(*(frame(mac(2), mac(1), size=size) for size in (60, 1514, 9000)))
        three.send(frame(mac(1), mac(3)), frame(mac(2), mac(3), size=200), frame(mac(98), mac(3)))
        one.send(*(frame(mac(2), mac(10 + number)) for number in range(5)))
        switch.settle()
        for vm in (one, two, three):
            switch.read_out(vm)
    capture.check(before)
    reasons = {reason for _, way, reason in capture.seen if way == DROP}
    assert {"storm", "isolated", "mac_limit", "filtered", "guarded"} <= reasons


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_a_full_ring_are_captured_with_their_destination(switch: MiniSwitch, kind: str) -> None:
    one, two = switch.add(1, kind), switch.add(2, kind, buffer=4096)
    two.send(frame(BROADCAST, mac(2)))
    one.send(frame(mac(2), mac(1)))
    switch.settle()
    capture = Capture(switch, size=1 << 25)
    for _ in range(40):
        one.send(*(frame(mac(2), mac(1), size=1514) for _ in range(30)))
        switch.settle()
    capture.read()
    assert capture.towards[2] == switch.lost_towards(2) > 0
    assert capture.seen[1, DROP, "egress_full"] == capture.towards[2]
    switch.read_out(two, 4096)
    capture.read()
    assert capture.seen[2, OUT, ""] == switch.counters(2)["tx_frames"] - 1


@pytest.mark.parametrize("kind", ["seqpacket", "dgram"])
def test_a_drop_that_is_no_frame_is_captured_too(switch: MiniSwitch, kind: str) -> None:
    one = switch.add(1, kind)
    switch.add(2, kind)
    before = {port: switch.counters(port) for port in (1, 2)}
    capture = Capture(switch)
    one.sock.send(b"short")
    switch.settle()
    capture.check(before)
    assert capture.seen[1, DROP, "runt"] == 1


def test_frames_are_kept_up_to_the_snap(switch: MiniSwitch) -> None:
    one = switch.add(1, "stream")
    capture = Capture(switch, snap=64)
    sent = [frame(BROADCAST, mac(1), b"payload", size) for size in (60, 64, 65, 1514)]
    one.send(*sent)
    switch.settle()
    assert capture.read() == [each[:64] for each in sent]
    assert capture.bytes[1, IN] == sum(map(len, sent))


def test_a_slow_reader_loses_captured_frames_and_knows_how_many(switch: MiniSwitch) -> None:
    one, two = switch.add(1, "stream"), switch.add(2, "stream")
    two.send(frame(BROADCAST, mac(2)))
    switch.settle()
    capture = Capture(switch, size=1 << 18)
    for _ in range(50):
        one.send(*(frame(mac(2), mac(1), size=1514) for _ in range(20)))
        switch.read_out(two)
    assert switch.lost_towards(2) == 0
    capture.read()
    reader = capture.readers[1]
    one.send(frame(mac(2), mac(1)))
    switch.settle()
    capture.read()
    assert reader.lost > 0
    assert capture.seen[1, IN, ""] + reader.lost == switch.counters(1)["rx_frames"]


def overfill(switch: MiniSwitch, vm: Vm) -> None:
    """Send 400 frames of 1,514 bytes: more than a ring of 256 KiB holds."""
    for _ in range(20):
        vm.send(*(frame(BROADCAST, mac(1), size=1514) for _ in range(20)))
        switch.settle()


def test_what_has_no_room_is_counted_and_not_copied(switch: MiniSwitch) -> None:
    """A ring that was full is written again when a fourth of it is free."""
    one = switch.add(1, "stream")
    size = 1 << 18
    capture = Capture(switch, size=size)
    reader, memory = capture.readers[1], capture.memories[1]
    overfill(switch, one)
    full = memory["head"]
    assert size - 1600 < full <= size
    assert memory["lost"] == reader.lost == 400 - full // 1544
    memory["tail"] = size // 8
    one.send(frame(BROADCAST, mac(1), size=1514))
    switch.settle()
    assert (memory["head"], reader.lost) == (full, 401 - full // 1544)
    memory["tail"] = size // 4 // 1544 * 1544 + 1544
    one.send(frame(BROADCAST, mac(1), size=1514))
    switch.settle()
    assert (memory["head"], reader.lost) == (full + 1544, 401 - full // 1544)


def test_a_jumbo_frame_longer_than_the_free_fourth_is_counted_and_not_copied(switch: MiniSwitch) -> None:
    """The smallest ring's fourth is 65,536 bytes, and a kept frame may take more."""
    one = switch.add(1, "stream")
    size = 1 << 18
    capture = Capture(switch, size=size)
    reader, memory = capture.readers[1], capture.memories[1]
    overfill(switch, one)
    full, lost = memory["head"], reader.lost
    memory["tail"] = full - size + (1 << 16)
    one.send(frame(BROADCAST, mac(1), size=1 << 16))
    switch.settle()
    assert (memory["head"], reader.lost) == (full, lost + 1)
    memory["tail"] = full - size + (1 << 16) + 24
    one.send(frame(BROADCAST, mac(1), size=1 << 16))
    switch.settle()
    assert (memory["head"], reader.lost) == (full + (1 << 16) + 24, lost + 1)


@pytest.mark.parametrize("tail", [1 << 40, 2**64 - 8, 4096])
def test_a_reader_that_lies_gets_nothing_and_harms_nobody(switch: MiniSwitch, tail: int) -> None:
    one, two = switch.add(1, "stream"), switch.add(2, "stream")
    lied = Capture(switch, number=1, size=1 << 18)
    honest = Capture(switch, number=2)
    lied.memories[1]["tail"] = tail
    for _ in range(20):
        one.send(*(frame(BROADCAST, mac(1), size=1514) for _ in range(20)))
        switch.settle()
        switch.read_out(two)
    assert lied.memories[1]["lost"] > 0
    assert lied.memories[1]["head"] <= (1 << 18) + 4096
    honest.read()
    assert honest.seen[1, IN, ""] == switch.counters(1)["rx_frames"] == 400


@pytest.mark.parametrize("head", [1, 23, 24, 1 << 40, 2**64 - 1])
@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_a_worker_that_lies_gives_only_what_is_there(switch: MiniSwitch, head: int, fill: bytes) -> None:
    switch.add(1, "stream")
    capture = Capture(switch, size=1 << 18)
    memory = capture.memories[1]
    memory.fill(fill)
    memory["head"] = head
    assert not capture.readers[1].broken
    found = capture.readers[1].read()
    assert capture.readers[1].broken == ((head, fill) != (24, b"\0")), "a frame of no bytes makes sense"
    assert all(not data for *_, data in found)
    assert len(found) <= head // 24
    assert capture.readers[1].read() == []


def test_a_capture_ends_and_another_begins(switch: MiniSwitch) -> None:
    one = switch.add(1, "stream")
    first = Capture(switch)
    one.send(frame(BROADCAST, mac(1)))
    switch.settle()
    second = Capture(switch)
    one.send(frame(BROADCAST, mac(1)))
    switch.settle()
    switch.engines[1].end_capture(1)
    one.send(frame(BROADCAST, mac(1)))
    switch.settle()
    assert (len(first.read()), len(second.read())) == (1, 1)


def test_captures_of_several_numbers_go_on_beside_each_other(switch: MiniSwitch) -> None:
    """A reader that never reads costs the other nothing."""
    one, two = switch.add(1, "stream"), switch.add(2, "stream")
    switch.settle()
    stuck = Capture(switch, number=1, size=1 << 18)
    arp = Capture(switch, number=2, program=ARP, snap=20)
    every = Capture(switch, number=3)
    for _ in range(50):
        one.send(*(frame(mac(2), mac(1), size=1514) for _ in range(20)))
        switch.read_out(two)
        every.read()
    assert every.seen[1, IN, ""] == 1000
    assert len(arp.read()) == 0
    assert len(stuck.read()) < 1000
    switch.engines[1].end_capture(3)
    switch.engines[1].end_capture(77)
    one.send(frame(mac(2), mac(1)))
    switch.settle()
    assert len(stuck.read()) >= 1
    every.read()
    assert every.seen[1, IN, ""] == 1000
    switch.engines[1].end_captures()
    one.send(frame(mac(2), mac(1)))
    switch.settle()
    stuck.read()
    assert stuck.seen[1, IN, ""] + stuck.readers[1].lost == 1001


def test_an_engine_that_captured_leaves_nothing(switch: MiniSwitch) -> None:
    switch.add(1, "stream")
    capture = Capture(switch)
    switch.restart(1)
    assert capture.read() == []

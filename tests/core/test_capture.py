"""What a capture holds is what the counters count, to the frame; its reader can be as slow as it likes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import _core
from supervisor.capture.filters import SNAP, _library, compile_filter
from tests.helpers.guests import requirements
from tests.helpers.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac
from tests.helpers.scribble import CaptureScribble

IN, OUT, DROP = 1, 2, 3
RING_BYTES = 1 << 22
REASONS = (
    "spoofed",
    "storm",
    "isolated",
    "offload",
    "mac_limit",
    "hairpin",
    "filtered",
    "refused",
    "runt",
    "guarded",
)
PAUSE = (bytes.fromhex("0180c2000001") + mac(2) + b"\x88\x08\x00\x01").ljust(60, b"\0")
RETURN_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF)


class Capture:
    """Captures of all ports of a switch, read together."""

    def __init__(
        self,
        switch: MiniSwitch,
        *,
        number: int = 1,
        size: int = RING_BYTES,
        program: bytes = b"",
        snap: int = 1 << 16,
    ) -> None:
        self.switch = switch
        self.seen: Counter[tuple[int, int, str]] = Counter()
        self.bytes: Counter[tuple[int, int]] = Counter()
        self.towards: Counter[int] = Counter()
        self.readers = {}
        self.memories: dict[int, CaptureScribble] = {}
        """What a hostile worker or reader can write to."""
        for port, engine in switch.engines.items():
            epoch = switch.epochs[port]
            ring = _core.capture_create(size, port, epoch)
            engine.capture(number, ring, program, snap)
            self.readers[port] = _core.CaptureReader(ring, port, epoch)
            self.memories[port] = CaptureScribble(ring, size)
            os.close(ring)

    def read(self) -> list[bytes]:
        """Take everything, and return what was kept of each frame."""
        frames = []
        for port, reader in self.readers.items():
            while some := reader.read():
                for _, way, peer, reason, length, data in some:
                    self.seen[port, way, reason] += 1
                    self.bytes[port, way] += length
                    self.towards[peer] += reason == "egress_full"
                    frames.append(data)
        return frames

    def check(self, before: dict[int, dict[str, int]]) -> None:
        """Compare with what the counters of all ports have grown by."""
        self.read()
        for port in self.readers:
            then = before[port]
            counters = {name: value - then[name] for name, value in self.switch.counters(port).items()}
            assert self.seen[port, IN, ""] == counters["rx_frames"]
            assert self.seen[port, OUT, ""] == counters["tx_frames"]
            assert self.bytes[port, IN] == counters["rx_bytes"]
            assert self.bytes[port, OUT] == counters["tx_bytes"]
            for reason in REASONS:
                assert self.seen[port, DROP, reason] == counters[reason], reason
            lost = self.switch.lost_towards(port) - counters["flood_lost"]
            assert self.towards[port] == lost


@pytest.fixture
def switch() -> Iterator[MiniSwitch]:
    with contextlib.closing(MiniSwitch()) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_the_counters(switch: MiniSwitch, kind: str) -> None:
    one, two, three = (switch.add(port, kind) for port in (1, 2, 3))
    switch.engines[1].set_limits(broadcast=40, multicast=0, unknown=0, bytes=0, macs=3)
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


def test_what_has_no_room_is_counted_and_not_copied(switch: MiniSwitch) -> None:
    """A ring that was full is written again when a fourth of it is free."""
    one = switch.add(1, "stream")
    size = 1 << 18
    capture = Capture(switch, size=size)
    reader, memory = capture.readers[1], capture.memories[1]
    for _ in range(20):
        one.send(*(frame(BROADCAST, mac(1), size=1514) for _ in range(20)))
        switch.settle()
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
    found = capture.readers[1].read()
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
    arp = Capture(switch, number=2, program=compile_arp(), snap=20)
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


def compile_arp() -> bytes:
    """Return the program of `arp`: is the half word at 12 0x0806?"""
    load, jump = struct.pack("=HBBI", 0x28, 0, 0, 12), struct.pack("=HBBI", 0x15, 0, 1, 0x0806)
    return load + jump + RETURN_ALL + struct.pack("=HBBI", 0x06, 0, 0, 0)


def test_an_engine_that_captured_leaves_nothing(switch: MiniSwitch) -> None:
    switch.add(1, "stream")
    capture = Capture(switch)
    switch.restart(1)
    assert capture.read() == []


@pytest.mark.parametrize(
    "program",
    [
        b"1234567",
        struct.pack("=HBBI", 0x28, 0, 0, 12),  # does not end
        struct.pack("=HBBI", 0x15, 1, 0, 12) + RETURN_ALL,  # jumps behind the end
        struct.pack("=HBBI", 0x05, 0, 0, 0xFFFFFFFF) + RETURN_ALL,  # and far behind it
        struct.pack("=HBBI", 0x34, 0, 0, 0) + RETURN_ALL,  # divides by zero
        struct.pack("=HBBI", 0x60, 0, 0, 16) + RETURN_ALL,  # a word of memory that is not there
        struct.pack("=HBBI", 0xFF, 0, 0, 0) + RETURN_ALL,
        RETURN_ALL * 4097,
    ],
)
def test_a_wrong_program_is_refused(switch: MiniSwitch, program: bytes) -> None:
    switch.add(1, "stream")
    with pytest.raises(OSError, match="Invalid argument"):
        Capture(switch, program=program)


class _Header(ctypes.Structure):
    _fields_ = (("time", ctypes.c_long * 2), ("kept", ctypes.c_uint32), ("length", ctypes.c_uint32))


class _Code(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_char_p))


def wanted_by_libpcap(program: bytes, data: bytes) -> bool:
    """Ask libpcap's own interpreter."""
    code = _Code(len(program) // 8, program)
    header = _Header((0, 0), len(data), len(data))
    return bool(_library().pcap_offline_filter(ctypes.byref(code), ctypes.byref(header), data))


ETHERTYPES = (b"\x08\x00", b"\x08\x06", b"\x86\xdd", b"\x81\x00\x00\x07\x08\x00")
EXPRESSIONS = (
    "arp",
    "tcp port 80",
    "ip6 and udp",
    "vlan 7",
    "host 10.0.0.1 or net 192.168.0.0/16",
    "greater 100",
    "ether host 02:00:00:00:00:01",
    "tcp[13] & 2 != 0",
    "icmp6",
    "ip[8] % 3 = 1",
    "not ip and len <= 80",
    "ether broadcast",
    "portrange 20-4000",
    "ip and (ip[2:2] - ((ip[0]&0xf)<<2)) > 60",
)


@pytest.fixture(scope="module")
def programs() -> list[bytes]:
    requirements.require(("libpcap",))
    return [compile_filter(each) for each in EXPRESSIONS]


@pytest.mark.parametrize("index", range(len(EXPRESSIONS)), ids=EXPRESSIONS)
def test_a_filter_chooses_the_same_frames_as_libpcap(
    switch: MiniSwitch, programs: list[bytes], index: int
) -> None:
    one = switch.add(1, "stream")
    switch.engines[1].set_limits(broadcast=0, multicast=0, unknown=0, bytes=0, macs=0)
    capture = Capture(switch, program=programs[index], snap=SNAP)
    draw = random.Random(index)
    sent = []
    for _ in range(400):
        kind = draw.choice(
            (b"\x08\x00", b"\x08\x06", b"\x86\xdd", b"\x81\x00\x00\x07\x08\x00", draw.randbytes(2))
        )
        body = bytearray(draw.randbytes(draw.choice((20, 60, 110))))
        body[0] = draw.choice((0x45, 0x46, 0x60, body[0]))
        body[draw.choice((9, 6))] = draw.choice((6, 17, 1, 58))
        body[12:16] = draw.choice((bytes((10, 0, 0, 1)), bytes((192, 168, 1, 2)), body[12:16]))
        sent.append(draw.choice((BROADCAST, mac(2))) + mac(draw.choice((1, 5))) + kind + bytes(body))
    for each in sent:
        one.send(each)
        switch.settle()
    assert capture.read() == [each for each in sent if wanted_by_libpcap(programs[index], each)]


# fmt: off
CODES = (
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0C, 0x15, 0x16, 0x1D, 0x20, 0x25, 0x28, 0x30, 0x34,
    0x3C, 0x40, 0x44, 0x45, 0x48, 0x50, 0x54, 0x60, 0x61, 0x64, 0x6C, 0x74, 0x80, 0x81, 0x84, 0x87, 0x94,
    0x9C, 0xA4, 0xB1,
)
# fmt: on
INSTRUCTION = st.builds(
    lambda code, jt, jf, k: struct.pack("=HBBI", code, jt, jf, k),
    st.sampled_from(CODES),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from((0, 1, 2, 12, 14, 15, 16, 40, 59, 60, 0x1F, 0xFFFFFFFF)),
)


@given(body=st.lists(INSTRUCTION, max_size=12), data=st.binary(min_size=46, max_size=80))
def test_any_accepted_program_does_the_same_as_libpcap(body: list[bytes], data: bytes) -> None:
    requirements.require(("libpcap",))
    # libpcap's memory begins as anything, so all of it is written first.
    cleared = [struct.pack("=HBBI", 0x02, 0, 0, word) for word in range(16)]
    program = b"".join([*cleared, *body]) + RETURN_ALL
    with contextlib.closing(MiniSwitch()) as switch:
        one = switch.add(1, "stream")
        try:
            capture = Capture(switch, program=program)
        except OSError:
            return
        sent = BROADCAST + mac(1) + data
        one.send(sent)
        switch.settle()
        assert bool(capture.read()) == wanted_by_libpcap(program, sent)

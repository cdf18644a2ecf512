"""Filters of captures choose the frames that libpcap chooses, and a program that is none is refused."""

from __future__ import annotations

import contextlib
import ctypes
import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.capture.filters import SNAP, _library, compile_filter
from tests.helpers.core.captures import Capture
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, mac
from tests.helpers.guests import requirements

RETURN_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF)


@pytest.fixture
def switch() -> Iterator[MiniSwitch]:
    with contextlib.closing(MiniSwitch()) as made:
        yield made


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

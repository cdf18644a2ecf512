"""A TAP's offloads by themselves: what the core makes of a frame behind a header is what the model says."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder import _core
from tests.helpers.core.mini_switch import frame, mac
from tests.helpers.core.model_segments import (
    ACK,
    CWR,
    EXTENSIONS,
    FIN,
    HEADER,
    NEEDS_CSUM,
    PSH,
    TCP,
    UDP,
    WORDS,
    Flow,
    checksum,
    is_right,
    vnet,
)

DATA_VALID, RSC_INFO = 2, 4
LEAST_SEGMENT = 8


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Anything that a kernel may leave to be cut."""
    ipv6, protocol = draw(st.booleans()), draw(st.sampled_from((TCP, UDP)))
    mss = draw(st.one_of(st.integers(LEAST_SEGMENT, 100), st.sampled_from((536, 1448, 1460, 8960))))
    most = min(64_000, 60 * mss)
    size = draw(st.one_of(st.integers(1, most), st.sampled_from((1, mss, mss + 1, 2 * mss, most))))
    extra = (draw(EXTENSIONS) if protocol == TCP else b"") if ipv6 else draw(WORDS)
    return Flow(
        payload=draw(st.randoms(use_true_random=False)).randbytes(size),
        mss=mss,
        ipv6=ipv6,
        protocol=protocol,
        tags=tuple(draw(st.lists(st.integers(0, 0xFFFF), max_size=2))),
        extra=extra,
        options=draw(WORDS) if protocol == TCP else b"",
        flags=draw(st.sampled_from((ACK, ACK | PSH, ACK | PSH | FIN, ACK | CWR, 0xFF))),
        sequence=draw(st.integers(0, (1 << 32) - 1)),
        ident=draw(st.integers(0, 0xFFFF)),
    )


@settings(max_examples=150)
@given(flow=flows())
def test_a_large_frame_is_cut_into_the_frames_of_its_senders_kernel(flow: Flow) -> None:
    assert _core.finish_offload(flow.unfinished()) == flow.finished()


@settings(max_examples=150)
@given(flow=flows())
def test_a_shortened_frame_becomes_the_same_but_the_last(flow: Flow) -> None:
    *others, _ = flow.finished()
    shorter = _core.shorten_offload(flow.unfinished())
    assert (_core.finish_offload(shorter) if shorter else []) == others


@given(size=st.integers(14, 3000), flags=st.sampled_from((0, NEEDS_CSUM, DATA_VALID)))
def test_a_frame_of_one_part_is_not_shortened(size: int, flags: int) -> None:
    assert _core.shorten_offload(vnet(flags, start=14) + frame(mac(1), mac(2), size=size)[:size]) == b""


@given(size=st.integers(14, 3000), data=st.data(), flags=st.sampled_from((0, DATA_VALID, RSC_INFO)))
def test_a_checksum_goes_where_the_header_says(size: int, data: st.DataObject, flags: int) -> None:
    plain = frame(mac(1), mac(2), data.draw(st.randoms(use_true_random=False)).randbytes(size), size)[:size]
    assert _core.finish_offload(vnet(flags) + plain) == [plain]
    if size < 16:
        return
    start = data.draw(st.integers(14, size - 2))
    offset = data.draw(st.integers(0, size - 2 - start))
    (done,) = _core.finish_offload(vnet(NEEDS_CSUM | flags, start=start, offset=offset) + plain)
    at = start + offset
    # The field is part of the summed bytes: word by word from `start`.
    assert done[:at] + done[at + 2 :] == plain[:at] + plain[at + 2 :]
    assert done[at : at + 2] == struct.pack(">H", checksum(plain[start:]))


def test_a_checksum_of_zero_is_stored_in_its_other_form() -> None:
    plain = frame(mac(1), mac(2), b"\xff\xff" + bytes(44))
    (done,) = _core.finish_offload(vnet(NEEDS_CSUM, start=14, offset=2) + plain)
    assert done[16:18] == b"\xff\xff"


GOOD = Flow(b"x" * 3000, 1000)
GOOD6 = GOOD._replace(ipv6=True)


def bent(flow: Flow, at: int, value: bytes) -> bytes:
    """The flow's frame with other bytes at a place behind the header."""
    whole = bytearray(flow.unfinished())
    whole[HEADER + at : HEADER + at + len(value)] = value
    return bytes(whole)


def headed(flow: Flow, **fields: int) -> bytes:
    """The flow's frame behind a header with other fields."""
    whole = flow.unfinished()
    names = ("flags", "kind", "headers", "segment", "start", "offset")
    known = dict(zip(names, struct.unpack_from("<BBHHHH", whole), strict=True))
    return vnet(**(known | fields)) + whole[HEADER:]


NONSENSE = {
    "a checksum in the addresses": vnet(NEEDS_CSUM, start=13) + frame(mac(1), mac(2)),
    "a checksum behind the end": vnet(NEEDS_CSUM, start=14, offset=45) + frame(mac(1), mac(2)),
    "a checksum far behind it": vnet(NEEDS_CSUM, start=0xFFFF, offset=0xFFFF) + frame(mac(1), mac(2)),
    "fragments of UDP": headed(GOOD, kind=3),
    "an unknown kind": headed(GOOD, kind=6),
    "no checksum wanted": headed(GOOD, flags=0),
    "no segments": headed(GOOD, segment=0),
    "tiny segments": headed(GOOD, segment=LEAST_SEGMENT - 1),
    "IPv4 said to be IPv6": headed(GOOD, kind=4),
    "IPv6 said to be IPv4": headed(GOOD6, kind=1),
    "TCP said to be UDP": headed(GOOD, kind=5, offset=6),
    "UDP said to be TCP": headed(GOOD._replace(protocol=UDP), kind=1, offset=16),
    "another place for the sum": headed(GOOD, offset=6),
    "a transport inside of IP": headed(GOOD, start=30),
    "a transport behind the end": headed(GOOD, start=3100),
    "three tags": bent(GOOD, 12, b"\x81\0\0\1" * 3),
    "neither IPv4 nor IPv6": bent(GOOD, 12, b"\x88\xb5"),
    "another version": bent(GOOD, 14, b"\x65"),
    "another version of IPv6": bent(GOOD6, 14, b"\x45"),
    "a short IPv4 header": bent(GOOD, 14, b"\x44"),
    "a long IPv4 header": bent(GOOD, 14, b"\x46"),
    "another protocol": bent(GOOD, 23, b"\x11"),
    "another protocol of IPv6": bent(GOOD6, 20, b"\x11"),
    "a fragment": bent(GOOD, 20, b"\x20\0"),
    "a later fragment": bent(GOOD, 20, b"\0\1"),
    "a fragment of IPv6": bent(GOOD6, 20, b"\x2c"),
    "a short TCP header": bent(GOOD, 46, b"\x40"),
    "a TCP header of all": bent(GOOD._replace(payload=b"x" * 12), 46, b"\x80"),
    "an extension too long": bent(GOOD6._replace(extra=bytes((0, TCP, 0)) + bytes(6)), 55, b"\x05"),
    "more than IPv4 holds": headed(GOOD._replace(payload=b"x" * 10))[: HEADER + 64] + b"x" * 65_530,
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_senseless_header_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match="no sense"):
        _core.finish_offload(NONSENSE[what])
    assert _core.shorten_offload(NONSENSE[what]) == b""


@settings(max_examples=200)
@given(flow=flows(), data=st.data())
def test_for_any_bytes_the_addresses_stay_and_the_work_is_bounded(flow: Flow, data: st.DataObject) -> None:
    whole = bytearray(flow.unfinished())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, min(80, len(whole) - 1)), st.integers(0, len(whole) - 1)))
        whole[at] = data.draw(st.integers(0, 255))
    addresses = bytes(whole[HEADER : HEADER + 12])
    try:
        frames = _core.finish_offload(bytes(whole))
    except ValueError:
        return
    assert all(each[:12] == addresses for each in frames)
    assert all(14 <= len(each) <= len(whole) - HEADER for each in frames)
    assert len(frames) <= len(whole) // LEAST_SEGMENT


@given(flow=flows())
def test_the_model_agrees_with_itself(flow: Flow) -> None:
    if not (flow.ipv6 and flow.extra):
        assert all(is_right(each) for each in flow.finished())

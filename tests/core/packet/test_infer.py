"""The header of a frame that came without one: what it was, and that a wrong guess changes nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from forwarder import _core
from tests.helpers.core.mini_switch import frame, mac
from tests.helpers.core.model_segments import (
    ACK,
    CWR,
    ECN,
    EXTENSIONS,
    FIN,
    GSO,
    HEADER,
    NEEDS_CSUM,
    PSH,
    ROUTING,
    TCP,
    UDP,
    WORDS,
    Flow,
    checksum,
    is_right,
    sum16,
    vnet,
)

NOTHING = bytes(HEADER)
SUM_AT = {TCP: 16, UDP: 6}


def mtu_of(flow: Flow) -> int:
    """Of the VM that cuts the flow into its segments."""
    return len(flow.finished()[0]) - len(flow.link)


@st.composite
def flows(draw: st.DrawFn, protocols: tuple[int, ...] = (TCP, UDP)) -> Flow:
    """What a VM with offloads may send: TCP of any length, UDP that fits."""
    ipv6, protocol = draw(st.booleans()), draw(st.sampled_from(protocols))
    mss = draw(st.one_of(st.integers(8, 100), st.sampled_from((536, 1448, 1460, 8960))))
    most = min(60_000, 60 * mss) if protocol == TCP else mss
    size = draw(st.one_of(st.integers(1, most), st.sampled_from((1, mss, min(most, mss + 1), most))))
    return Flow(
        payload=draw(st.randoms(use_true_random=False)).randbytes(size),
        mss=mss,
        ipv6=ipv6,
        protocol=protocol,
        tags=tuple(draw(st.lists(st.integers(0, 0xFFFF), max_size=2))),
        extra=(draw(EXTENSIONS) if protocol == TCP else b"") if ipv6 else draw(WORDS),
        options=draw(WORDS) if protocol == TCP else b"",
        flags=draw(st.sampled_from((ACK, ACK | PSH, ACK | PSH | FIN, ACK | CWR, 0xFF))),
        sequence=draw(st.integers(0, (1 << 32) - 1)),
        ident=draw(st.integers(0, 0xFFFF)),
    )


def header_of(flow: Flow) -> bytes:
    """What stands in front of it at its VM's kernel."""
    whole = flow.unfinished()[:HEADER]
    if len(flow.payload) > flow.mss:
        return whole
    flags, _, _, _, start, offset = struct.unpack("<BBHHHH", whole)
    return vnet(flags, start=start, offset=offset)


@settings(max_examples=150)
@given(flow=flows())
def test_the_inferred_header_is_the_original_one(flow: Flow) -> None:
    bare = flow.unfinished()[HEADER:]
    inferred = _core.infer_offload(bare, mtu_of(flow))
    assert inferred == header_of(flow)
    assert _core.finish_offload(inferred + bare) == flow.finished()


@settings(max_examples=150)
@given(flow=flows(), padding=st.integers(0, 60))
def test_zeros_behind_a_packet_change_nothing(flow: Flow, padding: int) -> None:
    assume(len(flow.payload) <= flow.mss)
    bare = flow.unfinished()[HEADER:] + bytes(padding)
    (done,) = _core.finish_offload(_core.infer_offload(bare, mtu_of(flow)) + bare)
    assert done == flow.finished()[0] + bytes(padding)


def test_bytes_behind_a_packet_are_not_summed() -> None:
    bare = Flow(b"x" * 100, 1000).unfinished()[HEADER:]
    assert _core.infer_offload(bare + b"\0\0\1", 1500) == NOTHING


def passes(whole: bytes, mtu: int) -> bool:
    """Whether a frame comes out of inference and finishing as it went in."""
    return _core.finish_offload(_core.infer_offload(whole, mtu) + whole) == [whole]


def begun_by_chance(flow: Flow) -> bytes:
    """The flow's first frame, finished, with a last word of payload that makes its sum the begun one."""
    size = len(flow.payload) // 2 * 2
    bare = flow._replace(payload=flow.payload[: size - 2] + b"\0\0")
    begun = int.from_bytes(bare.unfinished()[HEADER:][_field(bare)], "big")
    whole = bytearray(bare.finished()[0])
    field = int.from_bytes(whole[_field(bare)], "big")
    # The sum of everything but the field and the word is ~field; with the word it has to be ~begun.
    word = ((0xFFFF - begun) - (0xFFFF - field)) % 0xFFFF
    whole[-2:] = word.to_bytes(2, "big")
    whole[_field(bare)] = begun.to_bytes(2, "big")
    return bytes(whole)


def _field(flow: Flow) -> slice:
    transport = len(flow.link) + len(flow.ip(0, 0))
    return slice(transport + SUM_AT[flow.protocol], transport + SUM_AT[flow.protocol] + 2)


@settings(max_examples=150)
@given(flow=flows(), trailer=st.binary(max_size=4))
def test_a_finished_frame_passes_unchanged(flow: Flow, trailer: bytes) -> None:
    for whole in flow.finished():
        assert passes(whole + trailer, mtu_of(flow))


@settings(max_examples=150)
@given(flow=flows(), trailer=st.binary(max_size=4))
def test_a_finished_sum_that_looks_partial_stays_unchanged(flow: Flow, trailer: bytes) -> None:
    assume(2 <= len(flow.payload) <= flow.mss)
    whole = begun_by_chance(flow)
    assume(whole[_field(flow)] != b"\0\0")
    if not (flow.ipv6 and flow.extra):
        assert is_right(whole)
    assert _core.infer_offload(whole, mtu_of(flow)) != NOTHING
    assert passes(whole + trailer, mtu_of(flow))


ZERO_SUM = Flow(b"data", 1000)


def with_begun_of_nought(flow: Flow) -> Flow:
    """The flow with a source such that the begun sum is 0xffff, which is 0 in other words."""

    class Turned(Flow):
        @property
        def addresses(self) -> bytes:
            first = Flow.addresses.fget(self)  # type: ignore[attr-defined]
            rest = sum16(first[2:] + struct.pack(">II", self.carried, self.protocol))
            return (0xFFFF - rest).to_bytes(2, "big") + bytes(first[2:])

        @property
        def carried(self) -> int:
            return len(self.transport(0, 0, 0)) + len(self.payload)

    return Turned(*flow)


@pytest.mark.parametrize("field", [b"\0\0", b"\xff\xff"])
@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_nought_has_two_forms(protocol: int, ipv6: bool, field: bytes) -> None:
    flow = with_begun_of_nought(ZERO_SUM._replace(protocol=protocol, ipv6=ipv6))
    bare = bytearray(flow.unfinished()[HEADER:])
    assert bare[_field(flow)] == b"\xff\xff"
    bare[_field(flow)] = field
    inferred = _core.infer_offload(bytes(bare), 1500)
    if protocol == UDP and not ipv6 and field == b"\0\0":
        assert inferred == NOTHING  # it says that there is no sum
    else:
        assert _core.finish_offload(inferred + bytes(bare)) == flow.finished()


GOOD = Flow(b"x" * 3000, 1000)
GOOD6 = GOOD._replace(ipv6=True)
DATAGRAM = Flow(b"x" * 900, 1000, protocol=UDP)


def bent(flow: Flow, at: int, value: bytes) -> bytes:
    """The flow's bare frame with other bytes somewhere."""
    whole = bytearray(flow.unfinished()[HEADER:])
    whole[at : at + len(value)] = value
    return bytes(whole)


PASSES_AS_IT_IS = {
    "no IP": frame(mac(1), mac(2), b"x" * 100, 200),
    "a short frame": frame(mac(1), mac(2), size=14)[:14],
    "another protocol": bent(GOOD, 23, b"\x84"),
    "a part of a packet": bent(GOOD, 20, b"\x20\0"),
    "a later part": bent(GOOD, 20, b"\0\1"),
    "a part of a packet of IPv6": bent(GOOD6, 20, b"\x2c"),
    "a tunnel": bent(GOOD, 23, b"\x2f"),
    "a total length beyond the end": bent(GOOD, 16, b"\xff\xff"),
    "a total length of nothing": bent(GOOD, 16, b"\0\0"),
    "a total length that ends in TCP's header": bent(GOOD, 16, b"\0\x27"),
    "a total length that leaves data out": bent(GOOD, 16, b"\x01\0"),
    "a payload length of IPv6 beyond the end": bent(GOOD6, 18, b"\xff\xff"),
    "a jumbogram": bent(GOOD6, 18, b"\0\0"),
    "another length of UDP": bent(DATAGRAM, 38, b"\0\x09"),
    "three tags": bent(GOOD, 12, b"\x81\0\0\1" * 3),
    "an IPv4 header too short": bent(GOOD, 14, b"\x44"),
    "an IPv4 header behind the end": bent(Flow(b"", 1000)._replace(payload=b"x"), 14, b"\x4f")[:40],
    "an extension behind the end": bent(GOOD6._replace(extra=bytes((0, TCP, 0)) + bytes(6)), 55, b"\xff"),
    "nothing but extensions": bent(GOOD6._replace(extra=bytes(1 + 8 * 10)), 14, b"\x60"),
    "another sum": bent(GOOD, 50, b"\x12\x34"),
}  # fmt: skip


@pytest.mark.parametrize("what", PASSES_AS_IT_IS)
def test_nothing_is_inferred_from(what: str) -> None:
    assert _core.infer_offload(PASSES_AS_IT_IS[what], 1500) == NOTHING


@pytest.mark.parametrize(
    "extension",
    [bytes((ROUTING, TCP, 0)) + bytes(6), bytes((60, TCP, 1)) + bytes(14)],
    ids=["routing", "options"],
)
def test_extension_headers_are_passed(extension: bytes) -> None:
    flow = GOOD6._replace(extra=extension)
    assert _core.infer_offload(flow.unfinished()[HEADER:], mtu_of(flow)) == header_of(flow)


def test_every_beginning_of_a_frame_is_looked_at_safely() -> None:
    for flow in (GOOD, GOOD6, DATAGRAM, GOOD6._replace(extra=bytes((0, TCP, 0)) + bytes(6), tags=(1, 2))):
        whole = flow.unfinished()[HEADER:]
        for size in range(14, 140):
            assert _core.infer_offload(whole[:size], 1500) == NOTHING


@pytest.mark.parametrize(
    ("mtu", "segment"),
    [(68, 28), (48, 8), (47, None), (3039, 2999), (3040, None), (65_521, None)],
)
def test_a_packet_longer_than_the_mtu_is_to_be_cut(mtu: int, segment: int | None) -> None:
    bare = GOOD.unfinished()[HEADER:]
    expected = vnet(NEEDS_CSUM, start=34, offset=16)
    if segment is not None:
        expected = vnet(NEEDS_CSUM, GSO[False, TCP], 54, segment, 34, 16)
    assert _core.infer_offload(bare, mtu) == expected


def test_a_long_frame_with_a_notice_of_congestion_says_so() -> None:
    bare = GOOD._replace(flags=ACK | CWR).unfinished()[HEADER:]
    assert _core.infer_offload(bare, 1040)[1] == GSO[False, TCP] | ECN


def test_a_long_datagram_is_finished_whole() -> None:
    bare = DATAGRAM.unfinished()[HEADER:]
    assert _core.infer_offload(bare, 500) == vnet(NEEDS_CSUM, start=34, offset=6)


@settings(max_examples=300)
@given(flow=flows(), mtu=st.integers(0, 70_000), data=st.data())
@example(flow=GOOD, mtu=1040, data=None)
def test_an_inferred_header_makes_sense_for_any_bytes(
    flow: Flow, mtu: int, data: st.DataObject | None
) -> None:
    whole = bytearray(flow.unfinished()[HEADER:])
    for _ in range(data.draw(st.integers(1, 4)) if data is not None else 0):
        assert data is not None
        at = data.draw(st.one_of(st.integers(0, min(80, len(whole) - 1)), st.integers(0, len(whole) - 1)))
        whole[at] = data.draw(st.integers(0, 255))
    frames = _core.finish_offload(_core.infer_offload(bytes(whole), mtu) + bytes(whole))
    assert all(each[:12] == bytes(whole[:12]) for each in frames)
    assert len(frames) == 1 or all(len(each) <= mtu + 14 + 8 for each in frames)


def test_the_model_of_a_chance_match_passes_the_check() -> None:
    assert checksum(b"\0\0") == 0xFFFF
    assert passes(begun_by_chance(Flow(b"chance", 1000)), 1500)

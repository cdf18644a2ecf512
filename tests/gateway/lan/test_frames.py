"""Frames of the packet sockets: the filters, the reading, and right checksums."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import bpf
from gateway.lan import filters, frames
from gateway.lan.frames import Datagram, Opening, Solicitation, Trial, icmpv6, parse, udp

GUEST, OURS = b"\x52\x54\0\0\0\x01", b"\x5a\x94\xef\xe4\x0c\xdd"
FOUR = (IPv4Address("192.168.127.9").packed, IPv4Address("192.168.127.1").packed)
SIX = (IPv6Address("fd00::9").packed, IPv6Address("fd00::1").packed)
DNS, DHCP = 53, 67


def datagram(ends: tuple[bytes, bytes], port: int = DNS, payload: bytes = b"question") -> bytes:
    return udp(GUEST, Datagram(OURS, *ends, 4000, port, payload))


def opening(ends: tuple[bytes, bytes], flags: int = 0x02, port: int = DNS) -> bytes:
    segment = (4000).to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(9) + bytes((flags,)) + bytes(6)
    number = frames.TCP
    return frames._ethernet(GUEST, OURS, ends) + frames._packet_of(ends, number, segment, 64)


TRYING = icmpv6(GUEST, OURS, bytes(16), SIX[1], b"\x87" + bytes(7) + SIX[0])
SOLICITING = icmpv6(GUEST, OURS, SIX[0], SIX[1], b"\x85" + bytes(7))


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("payload", [b"", b"x", b"even", b"\xff" * 999])
def test_a_datagram_is_read_as_it_was_written(ends: tuple[bytes, bytes], payload: bytes) -> None:
    frame = datagram(ends, 77, payload)
    assert parse(frame) == Datagram(GUEST, *ends, 4000, 77, payload)
    assert parse(frame + bytes(20)) == parse(frame)  # Ethernet fills up short frames
    answer = Datagram(GUEST, *ends, 4000, 77, payload).answer(b"a")
    assert answer == Datagram(GUEST, ends[1], ends[0], 77, 4000, b"a")


def test_openings_and_solicitations_are_read() -> None:
    assert parse(opening(FOUR)) == Opening(GUEST, FOUR[0], 4000)
    assert parse(opening(SIX)) == Opening(GUEST, SIX[0], 4000)
    assert parse(SOLICITING) == Solicitation(GUEST, SIX[0])
    assert parse(TRYING) == Trial(GUEST, SIX[0])


@pytest.mark.parametrize("frame", [datagram(FOUR), datagram(SIX), opening(FOUR), SOLICITING])
def test_a_frame_that_is_cut_short_is_ignored(frame: bytes) -> None:
    for length in range(len(frame)):
        assert parse(frame[:length]) is None


def test_a_frame_with_wrong_lengths_is_ignored() -> None:
    good = datagram(FOUR)
    for at, value in (
        (14, 0x4F),
        (14, 0x44),
        (14, 0x65),
        (20, 0x20),
        (21, 1),
        (17, 255),
        (17, 10),
        (38, 1),
        (39, 99),
    ):
        assert parse(good[:at] + bytes((value,)) + good[at + 1 :]) is None, (at, value)
    assert parse(good[:12] + b"\x86\xdd" + good[14:]) is None


@given(st.binary(max_size=120))
def test_any_bytes_are_a_frame_or_not(data: bytes) -> None:
    parse(data)
    for kind in (b"\x08\x00\x45", b"\x86\xdd\x60"):
        parse(data[:12].ljust(12, b"\0") + kind + data[12:])


@pytest.mark.parametrize(("family", "ends"), [(4, ("127.0.0.1",) * 2), (6, ("::1",) * 2)])
def test_the_sums_are_right(family: int, ends: tuple[str, str]) -> None:
    addresses = tuple(
        socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, each) for each in ends
    )
    frame = datagram(addresses, 9, b"odd")  # type: ignore[arg-type]
    packet = frame[14:]
    start = 20 if family == 4 else 40
    total = frames._pseudo(*addresses, frames.UDP, len(packet) - start) + packet[start:]
    assert frames._checksum(total) == 0
    if family == 4:
        assert frames._checksum(packet[:20]) == 0


@pytest.fixture
def filtered() -> Iterator[object]:
    """Return what passes a program of the kernel's; a filter works on any socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)

    def passes(program: list[filters.Step], frame: bytes) -> bool:
        bpf.attach(ours, program)
        theirs.send(frame)
        try:
            return ours.recv(4096) == frame
        except BlockingIOError:
            return False

    yield passes
    ours.close()
    theirs.close()


def test_the_filters_take_questions_and_nothing_else(filtered) -> None:  # type: ignore[no-untyped-def]
    leases, four, six = filters.leases(), filters.ipv4(FOUR[1]), filters.ipv6(SIX[1])
    everybody = (bytes(4), b"\xff" * 4)
    other4, other6 = (FOUR[0], IPv4Address("192.168.127.9").packed), (SIX[0], IPv6Address("fd00::2").packed)
    options = datagram(FOUR)[:14] + b"\x46" + datagram(FOUR)[15:34] + bytes(4) + datagram(FOUR)[34:]
    for program, frame in (
        (four, datagram(FOUR)),
        (four, options),
        (leases, datagram(everybody, DHCP)),
        (leases, datagram(FOUR, DHCP)),
        (four, opening(FOUR)),
        (six, datagram(SIX)),
        (six, opening(SIX)),
        (six, SOLICITING),
        (six, TRYING),
    ):
        assert filtered(program, frame)
    for program, frame in (
        (leases, datagram(FOUR)),
        (leases, datagram(FOUR, 68)),
        (leases, opening(FOUR, port=DHCP)),
        (leases, datagram(FOUR, DHCP)[:20] + b"\x20\x00" + datagram(FOUR, DHCP)[22:]),
        (leases, datagram(FOUR, DHCP)[:30]),
        (four, datagram(FOUR, DHCP)),
        (four, datagram(FOUR, 54)),
        (four, datagram(other4)),
        (four, opening(FOUR, flags=0x10)),
        (four, opening(FOUR, port=80)),
        (four, opening(FOUR, port=DHCP)),
        (four, datagram(FOUR)[:20] + b"\x20\x00" + datagram(FOUR)[22:]),
        (four, datagram(FOUR)[:30]),
        (six, datagram(SIX, 54)),
        (six, datagram(SIX, DHCP)),
        (six, datagram(other6)),
        (six, opening(SIX, flags=0x10)),
        (six, opening(other6)),
        (six, icmpv6(GUEST, OURS, *SIX, b"\x86" + bytes(7))),
        (six, icmpv6(GUEST, OURS, *SIX, b"\x87" + bytes(7) + SIX[0])),
    ):
        assert not filtered(program, frame)

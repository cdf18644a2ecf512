"""Segments on their way to a TAP: which of them its kernel gets as one, and that nothing else is changed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.helpers.core.mini_switch import mac, record
from tests.helpers.core.model_segments import ACK, FIN, NEEDS_CSUM, PSH, UDP, Flow, checksum, sum16
from tests.helpers.core.tap import Neighbour, Tap
from tests.helpers.guests.fake_vm import OffloadVM
from tests.helpers.guests.netns import Namespace

pytestmark = pytest.mark.guest
KINDS = {
    "IPv4": Flow(b"a" * 40_001, 1448, options=bytes(12)),
    "IPv6": Flow(b"b" * 40_001, 1428, ipv6=True, options=bytes(12), sequence=0xFFFF_F000),
}
SHORT = Flow(b"c" * 3000, 1000)


class World:
    """A TAP, a neighbour that sends to it, and its kernel."""

    def __init__(self, tap: Tap, kernel: OffloadVM) -> None:
        self.tap = tap
        self.kernel = kernel
        self.neighbour = Neighbour(tap)

    def pass_on(self, frames: list[bytes]) -> list[bytes]:
        """Send frames as one run and return what the kernel gets of it, behind its headers."""
        before = self.tap.counters()
        self.neighbour.put(b"".join(map(record, frames)), with_headers=False)
        after = self.tap.counters()
        assert after["tx_frames"] - before["tx_frames"] == len(frames)
        assert after["tx_bytes"] - before["tx_bytes"] == sum(map(len, frames))
        got: list[bytes] = []
        while sum(len(cut(each)) for each in got) < len(frames):
            got.append(self.kernel.receive())
        return got


@pytest.fixture
def world(namespace: Callable[[str], Namespace]) -> Iterator[World]:
    tap = Tap(namespace("inside"))
    with tap.inside.offload_vm() as kernel:
        yield World(tap, kernel)
    tap.close()


def to_tap(flow: Flow) -> Flow:
    return flow._replace(destination=mac(1), source=mac(9))


def cut(whole: bytes) -> list[bytes]:
    """What a network card would make of a frame behind its ``virtio_net_hdr``."""
    flags, kind, _, step, start, offset = struct.unpack("<BBHHHH", whole[:10])
    frame = whole[10:]
    if not kind:
        return [frame]
    assert (flags & NEEDS_CSUM, offset, kind) == (NEEDS_CSUM, 16, 4 if start == 54 else 1)
    headers = start + (frame[start + 12] >> 4) * 4  # the kernel says how much of it is linear
    payload, parts = frame[headers:], []
    for number, at in enumerate(range(0, len(payload), step)):
        part, head = payload[at : at + step], bytearray(frame[:headers])
        carried = headers - start + len(part)
        if start == 54:
            struct.pack_into(">H", head, 18, carried)
        else:
            (ident,) = struct.unpack_from(">H", head, 18)
            struct.pack_into(">HH", head, 16, 20 + carried, ident + number & 0xFFFF)
            struct.pack_into(">H", head, 24, 0)
            struct.pack_into(">H", head, 24, 0xFFFF - sum16(bytes(head[14:34])))
        (sequence,) = struct.unpack_from(">I", head, start + 4)
        struct.pack_into(">I", head, start + 4, sequence + at & 0xFFFF_FFFF)
        if at + step < len(payload):
            head[start + 13] &= ~PSH
        struct.pack_into(">H", head, start + 16, 0)
        addresses = bytes(head[22:54] if start == 54 else head[26:34])
        body = bytes(head[start:]) + part
        struct.pack_into(">H", head, start + 16, checksum(addresses + struct.pack(">II", carried, 6) + body))
        parts.append(bytes(head) + part)
    return parts


@pytest.mark.parametrize("kind", KINDS)
def test_segments_that_follow_each_other_go_as_one(world: World, kind: str) -> None:
    flow = to_tap(KINDS[kind])
    (got,) = world.pass_on(flow.finished())
    whole = flow.unfinished()
    assert got[10:] == whole[10:]
    assert got[0] & NEEDS_CSUM
    assert (got[1:2], got[4:6]) == (whole[1:2], whole[4:6])


def test_a_segment_with_push_is_the_last_of_its_frame(world: World) -> None:
    first, second = to_tap(SHORT), to_tap(SHORT._replace(sequence=3001))
    got = world.pass_on(first.finished() + second.finished())
    assert [each[10:] for each in got] == [first.unfinished()[10:], second.unfinished()[10:]]


def _changed(at: int, value: int) -> Callable[[bytes], bytes]:
    return lambda frame: frame[:at] + bytes((frame[at] ^ value,)) + frame[at + 1 :]


OTHERS: dict[str, Flow | Callable[[bytes], bytes]] = {
    "a gap": SHORT._replace(sequence=3002),
    "again": SHORT._replace(sequence=2001),
    "more payload": Flow(b"d" * 1001, 1001, sequence=3001),
    "the end": Flow(b"e" * 1000, 1000, sequence=3001, flags=ACK | FIN),
    "no acknowledgement": SHORT._replace(sequence=3001, flags=PSH),
    "other options": SHORT._replace(sequence=3001, options=b"\1" * 4),
    "another protocol": SHORT._replace(protocol=UDP),
    "another version": SHORT._replace(ipv6=True, sequence=3001),
    "options of IPv4": SHORT._replace(sequence=3001, extra=b"\1" * 4),
    "a tag": SHORT._replace(sequence=3001, tags=(7,)),
    "a wrong payload": _changed(100, 1),
    "a wrong checksum": _changed(50, 1),
    "a wrong checksum of IP": _changed(24, 1),
    "another acknowledgement": _changed(45, 1),
    "another window": _changed(48, 1),
    "another port": _changed(34, 1),
    "another address": _changed(29, 1),
    "another class": _changed(15, 4),
    "a fragment": _changed(20, 0x20),
    "one that may be fragmented": _changed(20, 0x40),
    "a pad": lambda frame: frame + b"\0",
    "a cut": lambda frame: frame[:-1],
    "a header beyond its end": _changed(46, 0xA0),
    "hardly any": lambda frame: frame[:40],
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_segment_that_does_not_follow_goes_alone_and_unchanged(world: World, what: str) -> None:
    first = to_tap(SHORT._replace(flags=ACK)).finished()
    other = OTHERS[what]
    if isinstance(other, Flow):
        follower = to_tap(other).finished()[0]
    else:
        follower = other(to_tap(SHORT._replace(sequence=3001)).finished()[0])
    got = world.pass_on([*first, follower])
    assert [cut(each) for each in got] == [first, [follower]]


def test_joined_segments_cut_again_are_the_original_ones(world: World) -> None:
    rng = random.Random(4)
    for _ in range(100):
        frames: list[bytes] = []
        sequence = 1
        while len(frames) < 40:
            size = rng.choice((1, 7, 999, 1000, 1448, 5000))
            flow = SHORT._replace(
                payload=rng.randbytes(size),
                mss=rng.choice((1000, 1448)),
                sequence=sequence,
                ipv6=rng.random() < 0.1,
                ident=len(frames),
                flags=rng.choice((ACK, ACK, ACK | PSH)),
            )
            made = to_tap(flow).finished()
            sequence += size if rng.random() < 0.9 else 0
            if rng.random() < 0.2:
                spot = rng.randrange(len(made))
                made[spot] = _changed(rng.randrange(14, len(made[spot])), 1 << rng.randrange(8))(made[spot])
            frames += made
        got = world.pass_on(frames[:42])
        assert [part for each in got for part in cut(each)] == frames[:42]

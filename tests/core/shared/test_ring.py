"""The unicast ring by itself: what goes in comes out, whole and in order, or was refused."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder._core import MAX_FRAME, RingReader, RingWriter, ring_create
from forwarder.channel import close_all
from tests.helpers.core.mini_switch import mac, record
from tests.helpers.core.scribble import HEADER_BYTES, TAIL_BYTES, RingScribble

SIZE = 1 << 18  # the smallest power of two that holds two of the longest runs
IDS = (1, 101, 2, 202)  # source port and epoch, destination port and epoch
SIZES = (14, 15, 42, 60, 1514, 9014, 65550, MAX_FRAME)


@contextmanager
def ring(size: int = SIZE) -> Iterator[tuple[int, int]]:
    fds = ring_create(size, *IDS)
    try:
        yield fds
    finally:
        close_all(fds)


def body(number: int, size: int) -> bytes:
    return record(number.to_bytes(4, "big").ljust(size, bytes((number % 251,))))


def drain(reader: RingReader, most: int = 1 << 20) -> bytes:
    return b"".join(iter(lambda: reader.take(most), b""))


STEP = st.one_of(
    st.tuples(
        st.sampled_from(("put", "keep")),
        st.lists(st.sampled_from(SIZES), min_size=1, max_size=4),
        st.integers(1, 2),
    ),
    st.tuples(st.just("take"), st.sampled_from((1, 3, 5, 64, 1000, 70_000)), st.none()),
    st.tuples(st.just("publish"), st.none(), st.none()),
)


@settings(max_examples=150)
@given(steps=st.lists(STEP, max_size=80))
def test_ring_is_a_queue_of_whole_frames(steps: list[tuple[str, Any, Any]]) -> None:
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        private = published = b""
        starts: list[int] = []  # of the frames, in all bytes that were ever put
        taken = number = put = 0
        for action, first, src in steps:
            if action in ("put", "keep"):
                records = [body(number + i, size) for i, size in enumerate(first)]
                while len(b"".join(records)) > 65536 and len(records) > 1:
                    records.pop()
                if action == "put":
                    fitted = writer.put(b"".join(records), mac(src))
                    assert fitted <= len(records)
                else:
                    fitted = writer.commit(b"".join(records), mac(src), False, number % 3 * 1000)
                    assert fitted in (0, len(records))
                for each in records[:fitted]:
                    starts.append(put)
                    put += len(each)
                    private += each
                number += fitted
            elif action == "publish":
                assert writer.publish() == bool(private)
                published, private = published + private, b""
            else:
                piece = reader.take(first)
                assert len(piece) <= first
                assert bool(piece) == bool(published)
                assert published.startswith(piece)
                published, taken = published[len(piece) :], taken + len(piece)
            end = taken + len(published)
            assert reader.unread_frames() == sum(taken <= start < end for start in starts)
        assert not reader.broken
        assert not writer.broken


@given(puts=st.lists(st.tuples(st.booleans(), st.sampled_from((24, 60, 1514))), max_size=30))
def test_a_run_has_headers_before_all_of_its_frames_or_before_none(puts: list[tuple[bool, int]]) -> None:
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        expected: list[tuple[bool, bytes]] = []
        for number, (vnet, size) in enumerate(puts):
            assert writer.put(body(number, size), mac(1), vnet) == 1
            if expected and expected[-1][0] == vnet:
                expected[-1] = (vnet, expected[-1][1] + body(number, size))
            else:
                expected.append((vnet, body(number, size)))
        writer.publish()
        assert [(reader.vnet, run) for run in iter(lambda: reader.take(1 << 20), b"")] == expected


@pytest.mark.parametrize("to_the_end", range(0, 100, 3))
def test_runs_cross_the_end_of_the_memory_anywhere(to_the_end: int) -> None:
    """A length or a frame may be cut by the end of the ring at any byte."""
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        ahead = SIZE - to_the_end
        while ahead:
            size = min(ahead, 60_000) if ahead > 120_000 or ahead <= 60_000 else 60_000
            filler = body(0, size - 4)
            assert writer.put(filler, mac(1)) == 1
            writer.publish()
            assert drain(reader) == filler
            ahead -= size
        records = b"".join(body(n, 20 + n) for n in range(3))
        assert writer.put(records, mac(1)) == 3
        writer.publish()
        assert drain(reader, 7) == records


def test_full_ring_drops_whole_frames_at_its_tail() -> None:
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        kept, dropped = [], 0
        for number in range(400):
            records = [body(3 * number + i, 500) for i in range(3)]
            fitted = writer.put(b"".join(records), mac(1))
            kept += records[:fitted]
            dropped += 3 - fitted
        assert dropped > 0
        assert SIZE - 3 * 504 < len(b"".join(kept)) <= SIZE
        writer.publish()
        assert reader.unread_frames() == len(kept)
        assert drain(reader) == b"".join(kept)
        assert writer.put(body(1, 500), mac(1)) == 1


def test_room_comes_back_run_by_run() -> None:
    """The producer may not overwrite a run that is not wholly consumed: its boundaries are still needed."""
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        while writer.put(body(1, 30_000), mac(1)):
            writer.publish()
        reader.take(30_003)
        assert writer.put(body(2, 29_000), mac(1)) == 0
        reader.take(1)
        assert writer.put(body(2, 29_000), mac(1)) == 1


def test_nothing_is_seen_before_it_is_published() -> None:
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        writer.put(body(1, 60), mac(1))
        assert reader.take(100) == b""
        assert writer.publish()
        assert not writer.publish()
        assert reader.take(100) == body(1, 60)


def test_only_so_many_runs_wait() -> None:
    """Each frame is a run if sources alternate, and a ring has descriptions of 2,048 runs."""
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        fitted = [writer.put(body(n, 14), mac(n)) for n in range(2100)]
        assert fitted == [1] * 2048 + [0] * 52
        assert writer.commit(body(1, 14), mac(0)) == 0
        assert writer.put(body(3000, 14), mac(2047)) == 1  # of the same source as the last: the same run
        writer.publish()
        assert writer.put(body(3001, 14), mac(1)) == 0
        assert reader.unread_frames() == 2049
        assert reader.take(18) == body(0, 14)
        assert writer.put(body(3001, 14), mac(1)) == 1
        writer.publish()
        assert drain(reader) == b"".join(body(n, 14) for n in [*range(1, 2048), 3000, 3001])


def test_bytes_between_two_runs_belong_to_none_and_become_free() -> None:
    with ring() as fds:
        writer, reader = RingWriter(*fds, *IDS), RingReader(*fds, *IDS)
        for number in range(20):
            assert writer.commit(body(number, 60), mac(1), False, 100_000) == 1
            assert writer.put(body(number, 61), mac(1)) == 1
            writer.publish()
            assert drain(reader) == body(number, 60) + body(number, 61)
        assert writer.commit(body(1, 60), mac(1), False, SIZE - 63) == 0
        assert writer.commit(body(1, 60), mac(1), False, SIZE - 64) == 1


def test_a_ring_has_one_writer_for_good() -> None:
    with ring() as fds:
        reading = os.open(f"/proc/self/fd/{fds[0]}", os.O_RDONLY)
        writer, reader = RingWriter(*fds, *IDS), RingReader(reading, fds[1], *IDS)
        with pytest.raises(PermissionError):
            RingWriter(*fds, *IDS)
        with pytest.raises(PermissionError):
            RingScribble(*fds, SIZE)
        os.close(reading)
        assert writer.put(body(1, 60), mac(1)) == 1
        writer.publish()
        assert drain(reader) == body(1, 60)


@pytest.mark.parametrize("end", [RingWriter, RingReader])
@pytest.mark.parametrize("wrong", range(4))
def test_other_ports_and_epochs_are_refused(end: type, wrong: int) -> None:
    ids = list(IDS)
    ids[wrong] += 1
    with ring() as fds, pytest.raises(OSError, match="Stale"):
        end(*fds, *ids)


def memfd(size: int, seals: int = 0x2 | 0x4) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize("end", [RingWriter, RingReader])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: memfd(HEADER_BYTES + SIZE, seals=0), errno.EPERM),
        (lambda: memfd(HEADER_BYTES + SIZE, fcntl.F_SEAL_GROW), errno.EPERM),
        (lambda: memfd(HEADER_BYTES + SIZE, fcntl.F_SEAL_SHRINK), errno.EPERM),
        (lambda: memfd(HEADER_BYTES + SIZE), errno.EINVAL),  # no ring in it
        (lambda: memfd(HEADER_BYTES + SIZE - 4096), errno.EINVAL),
        (lambda: memfd(HEADER_BYTES + SIZE + 1), errno.EINVAL),
        (lambda: memfd(HEADER_BYTES), errno.EINVAL),
        (lambda: memfd(100), errno.EINVAL),
        (lambda: memfd(0), errno.EINVAL),
        (lambda: memfd(HEADER_BYTES + (1 << 29)), errno.EINVAL),
        (lambda: os.open("/dev/null", os.O_RDWR), errno.EINVAL),
        (lambda: socket.socket(socket.AF_UNIX).detach(), errno.EINVAL),
    ],
)
def test_memory_that_is_not_a_sealed_ring_is_refused(end: type, make: Callable[[], int], error: int) -> None:
    fd = make()
    try:
        with ring() as fds, pytest.raises(OSError, match=os.strerror(error)):
            end(fd, fds[1], *IDS)
    finally:
        os.close(fd)


@pytest.mark.parametrize("end", [RingWriter, RingReader])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: memfd(4096, seals=0), errno.EPERM),
        (lambda: memfd(4096), errno.EINVAL),  # no tail in it
        (lambda: memfd(TAIL_BYTES - 9), errno.EINVAL),
        (lambda: os.open("/dev/null", os.O_RDWR), errno.EINVAL),
    ],
)
def test_memory_that_is_not_a_sealed_tail_is_refused(end: type, make: Callable[[], int], error: int) -> None:
    fd = make()
    try:
        with ring() as fds, pytest.raises(OSError, match=os.strerror(error)):
            end(fds[0], fd, *IDS)
    finally:
        os.close(fd)


def test_a_tail_of_another_ring_is_refused() -> None:
    other = ring_create(SIZE, 1, 101, 2, 203)
    try:
        with ring() as fds, pytest.raises(OSError, match="Stale"):
            RingReader(fds[0], other[1], *IDS)
    finally:
        close_all(other)


@pytest.mark.parametrize("size", [0, 1, 4096, SIZE // 2, SIZE + 4096, (1 << 31) + 4096])
def test_ring_of_an_impossible_size_is_not_made(size: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        ring_create(size, *IDS)


def test_ring_cannot_be_cut_short_under_its_readers() -> None:
    with ring() as fds:
        for fd, sizes in zip(fds, ((0, HEADER_BYTES, HEADER_BYTES + 2 * SIZE), (0, 4096)), strict=True):
            for size in sizes:
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, size)


@pytest.mark.parametrize("field", ["magic", "layout", "tail_magic"])
def test_another_layout_is_refused(field: str) -> None:
    with ring() as fds:
        RingScribble(*fds, SIZE)[field] = 0x5A5A
        with pytest.raises(OSError, match="Invalid argument"):
            RingReader(*fds, *IDS)

"""A neighbour that has gone mad or was taken over, and writes over the memory that it shares with the engine.

It may spoil its own frames. It may not crash another worker, nor cost others a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forwarder._core import MAX_FRAME, RingReader, RingWriter, ring_create
from forwarder.channel import close_all
from tests.helpers.core.mini_switch import BROADCAST, FLOOD_BYTES, KINDS, MiniSwitch, frame, mac, record
from tests.helpers.core.scribble import FLOOD_RECORD, FloodScribble, RingScribble

SIZE = 1 << 18
IDS = (1, 101, 2, 202)  # source port and epoch, destination port and epoch


@contextmanager
def a_ring() -> Iterator[tuple[RingWriter, RingReader, RingScribble]]:
    fds = ring_create(SIZE, *IDS)
    try:
        shared = RingScribble(*fds, SIZE)  # before the writer seals it
        yield RingWriter(*fds, *IDS), RingReader(*fds, *IDS), shared
    finally:
        close_all(fds)


def record_of(number: int, size: int) -> bytes:
    return record(bytes((number,)) * size)


def drain(reader: RingReader) -> bytes:
    return b"".join(iter(lambda: reader.take(1 << 20), b""))


def broadcasts(src: int, count: int) -> list[bytes]:
    return [frame(BROADCAST, mac(src), bytes((number,))) for number in range(count)]


RUNS = 2048
RUN_LIMIT = 4 + MAX_FRAME
HUGE = st.sampled_from((0, 1, SIZE - 1, SIZE, SIZE + 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))


@given(head=HUGE | st.integers(0, 2**64 - 1))
def test_impossible_head_breaks_the_ring_for_its_reader(head: int) -> None:
    with a_ring() as (writer, reader, shared):
        writer.put(record_of(1, 60) + record_of(2, 60), mac(1))
        writer.publish()
        assert reader.take(80) == record_of(1, 60) + record_of(2, 60)[:16]
        honest = shared["head"]
        shared["head"] = head
        taken = drain(reader)
        assert record_of(2, 60)[16:].startswith(taken) or not reader.broken
        if head < honest or head > RUNS:
            assert reader.broken
            assert reader.take(100) == b""
        reader.unread_frames()


@pytest.mark.parametrize("field", ["tail_runs", "tail_bytes"])
@pytest.mark.parametrize("tail", [1 << 20, 2**64 - 1, 0])
def test_impossible_tail_breaks_the_ring_for_its_writer(field: str, tail: int) -> None:
    with a_ring() as (writer, _, shared):
        while writer.put(record_of(1, 60_000), mac(1)):
            writer.publish()
        shared["tail_bytes"] = 60_004
        shared["tail_runs"] = 1
        assert writer.put(record_of(1, 60_000), mac(1)) == 1
        shared[field] = tail  # beyond what was published, or backwards
        while writer.put(record_of(1, 60_000), mac(1)):
            pass
        assert writer.broken
        assert writer.put(record_of(1, 14), mac(1)) == 0
        assert writer.commit(record_of(1, 14), mac(1)) == 0


@pytest.mark.parametrize(
    ("at", "length", "frames", "vnet"),
    [
        *((0, length, 1, 0) for length in (0, 17, RUN_LIMIT + 1, 2**31, 2**32 - 1)),
        *((0, 64, frames, 0) for frames in (0, 4, 2**32 - 1)),
        *((at, 64, 1, 0) for at in (SIZE - 63, SIZE, 2**32, 2**63, 2**64 - 1)),
        (0, 64, 1, 2),
        (0, 64, 1, 255),
    ],
)
def test_impossible_run_breaks_the_ring_for_its_reader(at: int, length: int, frames: int, vnet: int) -> None:
    with a_ring() as (writer, reader, shared):
        writer.put(record_of(1, 60), mac(1))
        writer.publish()
        shared.describe(0, at, length, frames, mac(1), vnet)
        assert reader.unread_frames() == 0
        assert reader.take(100) == b""
        assert reader.broken
        shared.describe(0, 0, 64, 1, mac(1), 0)
        assert reader.take(100) == b""


def test_a_run_that_begins_before_the_last_one_ended_breaks_the_ring_for_its_reader() -> None:
    with a_ring() as (writer, reader, shared):
        for number in range(3):
            writer.put(record_of(number, 60), mac(number))
        writer.publish()
        shared.describe(1, 63, 64, 1, mac(1), 0)
        assert reader.unread_frames() == 1
        assert drain(reader) == record_of(0, 60)
        assert reader.broken


RING_SCRIBBLE = st.one_of(
    st.tuples(st.sampled_from(("head", "tail_runs", "tail_bytes")), HUGE | st.integers(0, SIZE)),
    st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("describe"), st.tuples(st.integers(0, 240), st.binary(min_size=1, max_size=24))),
    st.tuples(st.sampled_from(("put", "publish", "take", "unread")), st.integers(0, 70_000)),
)


@settings(max_examples=200)
@given(scribbles=st.lists(RING_SCRIBBLE, max_size=30))
def test_scribbling_over_a_ring_never_does_more_than_break_the_ring(scribbles: list[tuple[Any, Any]]) -> None:
    with a_ring() as (writer, reader, shared):
        for what, value in scribbles:
            if isinstance(what, int):
                shared.write(what, value)
            elif what == "describe":
                shared.write_descriptions(*value)
            elif what in ("head", "tail_runs", "tail_bytes"):
                shared[what] = value
            elif what == "put":
                was_broken = writer.broken
                fitted = writer.put(record_of(1, 14 + value % 60_000) + record_of(2, 60), mac(value % 2))
                assert not (was_broken and fitted)
            elif what == "publish":
                writer.publish()
            elif what == "take":
                was_broken = reader.broken
                piece = reader.take(value)
                assert len(piece) <= value
                assert not (was_broken and piece)
            else:
                assert reader.unread_frames() <= SIZE // 18


WORDS = st.sampled_from(
    (0, 1, 16, FLOOD_BYTES - 1, FLOOD_BYTES, FLOOD_BYTES + 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
)
FLOOD_SCRIBBLE = st.one_of(
    st.tuples(st.sampled_from(("head", "reserve", "version", "number")), WORDS | st.integers(0, 2000)),
    st.tuples(
        st.integers(0, 4).map(lambda n: 80 * n),
        st.builds(
            FLOOD_RECORD.pack,
            st.sampled_from((0, 11, 12, 13, 14, 60, 69632, 69633, 2**32 - 1)),
            st.integers(0, 5),
            st.integers(0, 4),
            st.just(0),
        ),
    ),
    st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("speak"), st.integers(1, 5)),
)


@settings(max_examples=150)
@given(scribbles=st.lists(FLOOD_SCRIBBLE, max_size=25), kind=st.sampled_from(KINDS))
@example(scribbles=[("version", 1), ("reserve", 2**63), ("head", 2**64 - 1)], kind="stream")
def test_scribbling_over_a_flood_ring_hurts_no_other(scribbles: list[tuple[Any, Any]], kind: str) -> None:
    with MiniSwitch() as switch:
        switch.add(1, kind)
        switch.add(3, kind)
        opened: list[FloodScribble] = []
        switch.before_start = lambda fd: opened.append(FloodScribble(fd, FLOOD_BYTES))
        switch.add(2, "dgram")
        (shared,) = opened
        honest = []
        for what, value in [*scribbles, ("speak", 1)]:
            if what == "speak":
                switch.vms[2].send(*broadcasts(2, value))
                switch.engines[2].run(0)
            elif isinstance(what, str):
                shared[what] = value
            else:
                shared.write(what, value)
            word = frame(BROADCAST, mac(3), len(honest).to_bytes(4, "big"))
            switch.vms[3].send(word)
            switch.engines[3].run(0)
            switch.engines[1].run(0)
            honest.append(word)
        switch.engines[1].run(0)
        heard = [each for each in switch.vms[1].received() if each[6:12] == mac(3)]
        assert heard == honest
        assert switch.counters(1)["flood_lost"] >= 0


def test_broken_flood_ring_is_counted() -> None:
    """From then on no flood of that port arrives, so the counters must show it."""
    with MiniSwitch() as switch:
        listener = switch.add(1, "stream")
        opened: list[FloodScribble] = []
        switch.before_start = lambda fd: opened.append(FloodScribble(fd, FLOOD_BYTES))
        switch.add(2, "stream")
        switch.vms[2].send(frame(BROADCAST, mac(2)))
        switch.engines[2].run(0)
        opened[0].write(0, FLOOD_RECORD.pack(60, 17, 1, 0))
        switch.settle()
        switch.vms[2].send(frame(BROADCAST, mac(2)))
        switch.settle()
        assert listener.received() == []
        assert switch.counters(1)["stale_ring"] == 1

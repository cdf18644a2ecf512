"""The request that a VM attaches with: taken in any pieces, bounded, and never taken for frames."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.attach.http_head import HEAD_BYTES, Head, RefusedError

GVFORWARDER = (
    b"POST /connect HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\n\r\n"
)
"""What Go's net/http writes for it, byte for byte."""
FRAMES = b"\x3c\0" + b"\xff" * 60


@pytest.mark.parametrize(
    "head",
    [
        GVFORWARDER,
        b"POST /connect HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /connect?a=b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /connect HTTP/1.0\r\n\r\n",
    ],
)
def test_bytes_behind_the_head_are_frames(head: bytes) -> None:
    assert Head().feed(head) == 0
    assert Head().feed(head + FRAMES) == len(FRAMES)
    assert Head().feed(head + b"\r\n\r\n") == 4


@given(cuts=st.lists(st.integers(1, len(GVFORWARDER) + len(FRAMES) - 1), max_size=8))
def test_a_request_in_pieces_is_read_like_one_in_one_piece(cuts: list[int]) -> None:
    data = GVFORWARDER + FRAMES
    head, ends = Head(), sorted({0, *cuts, len(data)})
    for start, end in itertools.pairwise(ends):
        beyond = head.feed(data[start:end])
        if end < len(GVFORWARDER):
            assert beyond is None
        else:
            assert beyond == end - len(GVFORWARDER)
            return


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n", 404, "--services"),
        (b"POST /connect/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "this socket has only /connect"),
        (b"POST /connect HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n", 400, "takes no body"),
        (b"POST /connect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "takes no body"),
        (b"POST /connect HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"\0\0\0\x3c" + FRAMES, 400, "no HTTP request"),  # a QEMU that was sent to the wrong listener
        (b"VFKT\r\n\r\n", 400, "no HTTP request"),
        (b"POST /connect HTTP/1.1\r\nx: " + b"y" * HEAD_BYTES, 431, "too long"),
    ],
)
def test_anything_else_is_answered_and_refused(data: bytes, status: int, why: str) -> None:
    with pytest.raises(RefusedError, match=why) as caught:
        Head().feed(data)
    head, _, body = caught.value.answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(body)}".encode() in head
    assert body == f"{caught.value}\n".encode()


@given(data=st.lists(st.binary(min_size=1, max_size=600), max_size=20))
def test_no_bytes_do_more_than_be_refused(data: list[bytes]) -> None:
    head = Head()
    with contextlib.suppress(RefusedError):
        for each in data:
            assert head.feed(each) is None


def test_a_head_never_keeps_more_than_its_bound() -> None:
    head, lines = Head(), 0
    assert head.feed(b"POST /connect HTTP/1.1\r\n") is None
    with contextlib.suppress(RefusedError):
        while head.feed(b"a: bcd\r\n") is None:
            lines += 1
    assert 8 * lines <= HEAD_BYTES

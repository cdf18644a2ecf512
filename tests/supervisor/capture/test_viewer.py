"""What a viewer says of captured frames."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from forwarder.counted import DROPS
from supervisor.capture.viewer import MOST_LEFT, TO_VM, Viewer, _Port


def test_dropped_frames_have_the_direction_that_their_counter_names() -> None:
    """A full ring is noticed by the worker of the frame's source, which captures it there."""
    for name, meaning in DROPS.items():
        assert (name in TO_VM) == (meaning.startswith("for this VM") and name != "egress_full")


class Flood:
    """The ring of a worker that was taken over: it has always one more frame, of the same time."""

    lost = 0

    def __init__(self, at: int) -> None:
        self._at = at
        self.given = 0

    def read(self) -> list[tuple[int, int, int, str, int, bytes]]:
        self.given += 1000
        return [(self._at, 1, 0, "", 60, bytes(60))] * 1000


class Form:
    """Notes the times."""

    def packet(
        self, number: int, time_ns: int, data: bytes, length: int, *, flags: int, comment: str
    ) -> bytes:
        return time_ns.to_bytes(8, "big")


def viewer_of(*floods: Flood) -> Viewer:
    viewer: Any = Viewer.__new__(Viewer)
    viewer._form, viewer._of_port, viewer._waiting, viewer._since_1970 = Form(), Counter(), [], 10**18
    viewer._ports = {(number, 1): _Port(number, flood) for number, flood in enumerate(floods)}
    return viewer  # type: ignore[no-any-return]


def test_a_worker_that_goes_on_for_ever_does_not_keep_a_capture_from_its_end() -> None:
    flood = Flood(0)
    viewer_of(flood)._drain()
    assert flood.given < MOST_LEFT + 2000


def test_no_frame_is_of_the_future() -> None:
    viewer = viewer_of(Flood(2**64 - 1), Flood(time.monotonic_ns() + 10**12))
    assert viewer._read()
    assert len(viewer._waiting) == 2000
    assert max(at for at, _ in viewer._waiting) <= time.monotonic_ns()

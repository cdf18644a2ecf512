"""What a viewer says of captured frames."""

from __future__ import annotations

from forwarder.counted import DROPS
from supervisor.capture.viewer import TO_VM


def test_dropped_frames_have_the_direction_that_their_counter_names() -> None:
    """A full ring is noticed by the worker of the frame's source, which captures it there."""
    for name, meaning in DROPS.items():
        assert (name in TO_VM) == (meaning.startswith("for this VM") and name != "egress_full")

"""Stub of what ``capture/`` has: the ring that copies of frames go through, and its reader."""

def capture_create(size: int, port: int, epoch: int) -> int:
    """A new capture ring as a sealed memfd: a worker's copies of frames, and its reader's cursor."""

class CaptureReader:
    """The reader of a capture: the frames that one port's worker has copied."""

    def __init__(self, fd: int, port: int, epoch: int, /) -> None: ...
    @property
    def broken(self) -> bool:
        """Whether the ring contradicted itself: its worker is hostile, and its frames are at their end."""

    @property
    def lost(self) -> int:
        """Frames that had no room in the ring, since they came faster than they were read."""

    def read(self) -> list[tuple[int, int, int, str, int, bytes]]:
        """Some new frames: (monotonic ns, way, peer, reason, length of the frame, the kept bytes).

        ``way``: 1 from the VM, 2 to the VM, 3 dropped; then ``reason`` is the drop's counter and ``peer`` the
        port that the frame was for, or 0. A damaged ring yields nothing more.
        """

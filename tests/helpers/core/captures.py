"""Captures of all ports of a mini switch, read together and compared with the counters."""

from __future__ import annotations

import os
from collections import Counter

from forwarder import _core
from tests.helpers.core.mini_switch import MiniSwitch
from tests.helpers.core.scribble import CaptureScribble

IN, OUT, DROP = 1, 2, 3
RING_BYTES = 1 << 22
REASONS = (
    "spoofed",
    "over_rate",
    "storm",
    "isolated",
    "offload",
    "mac_limit",
    "hairpin",
    "filtered",
    "sources",
    "refused",
    "runt",
    "guarded",
)


class Capture:
    """Captures of all ports of a switch, read together."""

    def __init__(
        self,
        switch: MiniSwitch,
        *,
        number: int = 1,
        size: int = RING_BYTES,
        program: bytes = b"",
        snap: int = 1 << 16,
    ) -> None:
        self.switch = switch
        self.seen: Counter[tuple[int, int, str]] = Counter()
        self.bytes: Counter[tuple[int, int]] = Counter()
        self.towards: Counter[int] = Counter()
        self.readers = {}
        self.memories: dict[int, CaptureScribble] = {}
        """What a hostile worker or reader can write to."""
        for port, engine in switch.engines.items():
            epoch = switch.epochs[port]
            ring = _core.capture_create(size, port, epoch)
            engine.capture(number, ring, program, snap)
            self.readers[port] = _core.CaptureReader(ring, port, epoch)
            self.memories[port] = CaptureScribble(ring, size)
            os.close(ring)

    def read(self) -> list[bytes]:
        """Take everything, and return what was kept of each frame."""
        frames = []
        for port, reader in self.readers.items():
            while some := reader.read():
                for _, way, peer, reason, length, data in some:
                    self.seen[port, way, reason] += 1
                    self.bytes[port, way] += length
                    self.towards[peer] += reason == "egress_full"
                    frames.append(data)
        return frames

    def check(self, before: dict[int, dict[str, int]]) -> None:
        """Compare with what the counters of all ports have grown by."""
        self.read()
        for port in self.readers:
            then = before[port]
            counters = {name: value - then[name] for name, value in self.switch.counters(port).items()}
            assert self.seen[port, IN, ""] == counters["rx_frames"]
            assert self.seen[port, OUT, ""] == counters["tx_frames"]
            assert self.bytes[port, IN] == counters["rx_bytes"]
            assert self.bytes[port, OUT] == counters["tx_bytes"]
            for reason in REASONS:
                assert self.seen[port, DROP, reason] == counters[reason], reason
            lost = self.switch.lost_towards(port) - counters["flood_lost"]
            assert self.towards[port] == lost

"""Traffic through a MiniSwitch in a process of its own, so that a library can be preloaded into it.

    python -m tests.helpers.preload.traffic KIND FRAMES SEED

Port 1 (a stream) sends FRAMES numbered frames of random sizes to port 2 (KIND), and port 3 (a datagram) as
many to the same. Prints one JSON object: frames that arrived, whether each was whole and in order for its
source, what the port counted, and the CPU seconds that it took. With FRAMES 0 a single frame is sent, and the
process shows for one second what the port does with it.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time

from tests.helpers.core.mini_switch import MiniSwitch, frame, mac

PATIENCE_S = 30.0


def numbered(source: int, number: int, size: int) -> bytes:
    """Frame that proves its own content."""
    head = source.to_bytes(1, "big") + number.to_bytes(4, "big")
    body = hashlib.blake2b(head).digest()
    return frame(
        mac(2), mac(source), head + (body * (size // len(body) + 1))[: size - 14 - len(head)], size=size
    )


def check(data: bytes) -> tuple[int, int, bool]:
    """Return (source, number, whether the rest is what that frame carries)."""
    source, number = data[14], int.from_bytes(data[15:19], "big")
    return source, number, data == numbered(source, number, len(data))


def run(kind: str, frames: int, seed: int) -> dict[str, object]:
    """Send, receive and check."""
    rng = random.Random(seed)
    switch = MiniSwitch()
    for port, each in ((1, "stream"), (2, kind), (3, "dgram")):
        switch.add(port, each)
    switch.connect(1, 2)
    switch.connect(3, 2)
    for port in (1, 3):
        switch.engines[port].pin(2, [mac(2)])
    last = {1: -1, 3: -1}
    arrived, whole, sent = 0, True, 0
    cpu, until = time.process_time(), time.monotonic() + (PATIENCE_S if frames else 1.0)
    if not frames:
        switch.vms[1].send(numbered(1, 0, 100))
    while time.monotonic() < until and (arrived < 2 * frames or not frames):
        if sent < frames and sent - arrived < 50:
            for port in (1, 3):
                switch.vms[port].send(numbered(port, sent, rng.choice((19, 60, 1514, 9014))))
            sent += 1
        for engine in switch.engines.values():
            engine.run(0.001 if sent == frames else 0.0)
        for data in switch.vms[2].received():
            source, number, sound = check(data)
            whole = whole and sound and number == last[source] + 1
            last[source] = number
            arrived += 1
    result = {
        "arrived": arrived,
        "whole": whole,
        "counters": switch.counters(2),
        "lost": switch.lost_towards(2),
        "link_error": switch.engines[2].link_error,
        "cpu_s": time.process_time() - cpu,
    }
    switch.close()
    return result


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))

"""Drive two engines of the core in one process, for a profiler that has to start what it looks at.

    python -m scripts.benchmarks.drive_core KIND SIZE FRAMES

Prints how many frames were forwarded from one port to the other.
"""

from __future__ import annotations

import sys

from tests.helpers.core.mini_switch import MiniSwitch, frame, mac

AT_ONCE = 32
TURNS = 2  # of both engines for so many frames: what is left is taken along by the next ones


def main(kind: str, size: int, frames: int) -> int:
    """Forward frames; returns how many arrived."""
    with MiniSwitch() as switch:
        one, other = switch.add(1, kind), switch.add(2, kind)
        for _ in range(2):  # the first ones are flooded, the next ones ask for a ring
            one.send(frame(mac(2), mac(1), size=size))
            other.send(frame(mac(1), mac(2), size=size))
            switch.settle()
        other.received()
        at_once = max(1, min(AT_ONCE, 100_000 // size))
        arrived = 0
        for _ in range(frames // at_once):
            one.send(*[frame(mac(2), mac(1), size=size)] * at_once)
            for _ in range(TURNS):
                for engine in switch.engines.values():
                    engine.run(0)
            arrived += len(other.received())
        return arrived


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

"""One frame for a VM whose kernel refuses it once, in a process of its own for a preloaded library.

    python -m tests.helpers.preload.retry KIND

The engine of the VM (KIND) is in one long run, as a worker's is, and nothing but its own timer can end its
sleep. Prints one JSON object: whether the frame arrived, and what the port counted.
"""

from __future__ import annotations

import json
import sys

from tests.helpers.core.engine_thread import at_work
from tests.helpers.core.mini_switch import MiniSwitch, frame, mac
from tests.helpers.guests.waiting import PATIENCE


def run(kind: str) -> dict[str, object]:
    sent = frame(mac(2), mac(1))
    with MiniSwitch() as switch:
        sender, vm = switch.add(1, "stream"), switch.add(2, kind)
        switch.connect(1, 2)
        switch.engines[1].pin(2, [mac(2)])
        sender.send(sent)
        while not switch.counters(1)["rx_frames"]:
            switch.engines[1].run(0)
        vm.sock.settimeout(PATIENCE)
        engine = switch.engines[2]
        with at_work(engine):
            got = vm.read()
        return {"arrived": got == [sent], "counters": switch.counters(2)}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))

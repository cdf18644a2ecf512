"""A learning switch in a few lines: the oracle for the compiled core.

It says *what* must arrive where, and knows nothing of sockets, rings and bursts. As in Bulkhead every port
learns by itself, from the frames that reach it; a port that is flooded an unknown address which lives behind
it answers with an announcement to all (one a burst, the next flood brings the next one).

A burst is what a VM sends at once, all from one source address: it is decided before any answer. The
model speaks for a quiet switch: where a queue is full, frames are missing from what it says.
"""

from __future__ import annotations

from collections import Counter, defaultdict

PERIOD_S = 150


def is_group(mac: bytes) -> bool:
    return bool(mac[0] & 1)


class ModelSwitch:
    def __init__(self) -> None:
        self.now = 0
        self.tables: dict[int, dict[bytes, tuple[int, int]]] = {}  # per port: address -> (behind, last seen)
        self.pins: dict[bytes, int] = {}
        self.no_unknown: set[int] = set()
        self.counts: Counter[tuple[int, str]] = Counter()

    def join(self, port: int) -> None:
        self.tables[port] = {}

    def leave(self, port: int) -> None:
        del self.tables[port]
        self.no_unknown.discard(port)
        self.pin(port, [])
        for table in self.tables.values():
            for mac in [mac for mac, (behind, _) in table.items() if behind == port]:
                del table[mac]

    def pin(self, port: int, macs: list[bytes]) -> None:
        self.pins = {mac: at for mac, at in self.pins.items() if at != port} | dict.fromkeys(macs, port)
        for table in self.tables.values():
            for mac in macs:
                table.pop(mac, None)

    def find(self, at: int, mac: bytes) -> int | None:
        behind, seen = self.tables[at].get(mac, (None, 0))
        fresh = self.now // PERIOD_S - seen // PERIOD_S <= 1
        return self.pins.get(mac, behind if fresh else None)

    def learn(self, at: int, mac: bytes, behind: int) -> None:
        if not is_group(mac) and mac not in self.pins:
            self.tables[at][mac] = (behind, self.now)

    def may_speak(self, port: int, src: bytes) -> bool:
        return self.pins.get(src) == port if port in self.pins.values() else src not in self.pins

    def burst(self, port: int, frames: list[bytes]) -> dict[int, list[bytes]]:
        """What every port's VM receives of ``frames``, sent by the VM of ``port``."""
        delivered: dict[int, list[bytes]] = defaultdict(list)
        answers: dict[int, bytes] = {}
        for frame in frames:
            dst, src = frame[:6], frame[6:12]
            if is_group(src):
                self.counts[port, "guarded"] += 1
                continue
            if not self.may_speak(port, src):
                self.counts[port, "spoofed"] += 1
                continue
            self.learn(port, src, port)
            to = None if is_group(dst) else self.find(port, dst)
            if to == port:
                self.counts[port, "hairpin"] += 1
                continue
            for other in [to] if to is not None else [other for other in self.tables if other != port]:
                self.learn(other, src, port)
                lives_here = self.find(other, dst) == other
                if to is not None or is_group(dst) or lives_here or other not in self.no_unknown:
                    delivered[other].append(frame)
                else:
                    self.counts[other, "filtered"] += 1
                if to is None and lives_here:
                    answers.setdefault(other, dst)
        for owner, mac in answers.items():
            for other in self.tables:
                if other != owner:
                    self.learn(other, mac, owner)
        return delivered

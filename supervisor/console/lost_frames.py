"""Frames that full rings lost, by the port that they were for.

Theory of operation. The *source* worker loses, and counts, a frame for which a ring has no room; the operator
looks for it at the *destination*. So ``egress_full`` of a port is the sum of

* the rows of every other port's page towards this port,
* what ports that have left meanwhile had lost towards it (``Departed.towards``),
* the flood frames that the port lost itself because the writer lapped it.

Port numbers are reused, so a row counts only if its ``born`` is that of the present port.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from supervisor.console.readings import Reading

Json = dict[str, Any]
Key = tuple[int, int]
"""A port's number and when it was born."""


class Departed:
    """What ports that have left had counted.

    Changed by ``fold`` only, once for each port that leaves, while its page is still readable.
    """

    def __init__(self) -> None:
        self.ports = 0
        self.totals: dict[str, int] = {}
        self.gateway: dict[str, int] = {}
        """The part of the totals that belongs to ports of gateways."""
        self.towards: dict[tuple[int, int], int] = {}
        """(living port, its born): frames that departed sources had lost towards it."""

    def fold(self, port: int, readings: Mapping[int, Reading], *, of_gateway: bool = False) -> None:
        """Add the counters of a leaving ``port``; ``readings`` holds its own and those of all other ports."""
        own = readings[port]
        self.ports += 1
        for name, value in own.counters.items():
            self.totals[name] = self.totals.get(name, 0) + value
            if of_gateway:
                self.gateway[name] = self.gateway.get(name, 0) + value
        lost = egress_full(port, readings, self)
        self.totals["egress_full"] = self.totals.get("egress_full", 0) + lost
        self.towards.pop((port, own.born), None)
        for peer, born, frames, _ in own.losses:
            other = readings.get(peer)
            if frames and other is not None and other.born == born:
                self.towards[peer, born] = self.towards.get((peer, born), 0) + frames


def egress_full(port: int, readings: Mapping[int, Reading], departed: Departed) -> int:
    """Return the frames for the VM of ``port`` that a full ring lost, counted at any port."""
    return all_egress_full(readings, departed)[port]


def all_egress_full(readings: Mapping[int, Reading], departed: Departed) -> dict[int, int]:
    """Return ``egress_full`` of every port, in one pass over all losses."""
    full = {
        port: own.counters.get("flood_lost", 0) + departed.towards.get((port, own.born), 0)
        for port, own in readings.items()
    }
    for own in readings.values():
        for peer, born, frames, _ in own.losses:
            if peer in readings and readings[peer].born == born:
                full[peer] += frames
    return full


def _lost_towards(port: int, born: int, readings: Mapping[int, Reading]) -> list[tuple[int, int]]:
    """Return (source port, frames that it lost towards the port), without zeros."""
    return [
        (source, frames)
        for source, reading in sorted(readings.items())
        for peer, peer_born, frames, _ in reading.losses
        if (peer, peer_born) == (port, born) and frames
    ]


def by_source(port: int, readings: Mapping[int, Reading], departed: Departed) -> list[Json]:
    """Return ``egress_full`` of a port by source port; sources that have left are ``null``."""
    own = readings[port]
    lost = dict(_lost_towards(port, own.born, readings))
    for peer, born, _, floods in own.losses:
        other = readings.get(peer)
        if floods and other is not None and other.born == born:
            lost[peer] = lost.get(peer, 0) + floods
    rows: list[Json] = [{"port": source, "egress_full": frames} for source, frames in sorted(lost.items())]
    gone = egress_full(port, readings, departed) - sum(lost.values())
    if gone > 0:
        rows.append({"port": None, "egress_full": gone})
    return rows


class LostFrames:
    """What each port has lost towards each other one, kept up to date source by source.

    Adding up all sources for each destination would be 62,500 sums a second with 250 ports; so only what a
    source has counted since the last look is added.

        port 1 says (2, born 7): 100 frames, later 130    towards(2, 7) is 100, later 130
    """

    def __init__(self) -> None:
        self._said: dict[int, dict[Key, int]] = {}
        self._sums: dict[Key, int] = {}

    def told(self, source: int, rows: Iterable[tuple[int, int, int, int]]) -> None:
        """Take what a source has counted by now, as a page's ``losses`` gives it."""
        self.depart(source)
        said = {(peer, born): frames for peer, born, frames, _ in rows if frames}
        for key, frames in said.items():
            self._sums[key] = self._sums.get(key, 0) + frames
        self._said[source] = said

    def depart(self, source: int) -> None:
        """Forget what a source has counted, which has left."""
        for key, frames in self._said.pop(source, {}).items():
            left = self._sums[key] - frames
            if left:
                self._sums[key] = left
            else:
                del self._sums[key]

    def towards(self, port: int, born: int) -> int:
        """Return the frames that living sources have lost towards a port."""
        return self._sums.get((port, born), 0)
